"""Ordinary texts: prose of many kinds, code, tables and sums, put together from sentences so that each is another."""

from __future__ import annotations

import random

_SENTENCES: dict[str, tuple[str, ...]] = {
    "fiction": (
        "The lamp in the hall had gone out before anybody came.",
        "She put the letter back and said that it could wait until spring.",
        "Nobody in the village remembered the year of the flood, only its mark on the mill.",
        "He counted {n} steps to the gate and {m} back, as he did each evening.",
        "“You are late,” said the boy, and went on drawing.",
        "The dog slept through the storm and woke at the smell of bread.",
        "There were {n} ships in the bay, and none of them carried a flag.",
    ),
    "news": (
        "The council voted {n} to {m} for the new bridge on Tuesday.",
        "Prices rose by {n}.{m} per cent over the year, the office for statistics said.",
        "Some {n},{m}00 people had signed the petition by noon.",
        "Trains between the two cities will stop from 22:30 until 5:15.",
        "The match ended {n}:{m} after extra time.",
    ),
    "medical": (
        "The patient reports pain in the left knee for {n} weeks, worse on stairs.",
        "Blood pressure 1{n}/8{m}, heart rate regular, no fever.",
        "An X-ray showed no fracture; ibuprofen 400 mg as needed.",
        "Follow-up in {n} days, earlier if the swelling grows.",
        "No known allergies. Vaccinated against tetanus in 20{n}.",
    ),
    "legal": (
        "The tenant shall give notice of {n} months before the end of a quarter.",
        "Section {n} applies accordingly; paragraph ({m}) remains unaffected.",
        "Either party may withdraw within fourteen days without giving reasons.",
        "The court held that the clause was void from the beginning.",
    ),
    "recipe": (
        "Whisk {n} eggs with {m}0 g of sugar until pale.",
        "Bake at 180 °C for {n}5 minutes, then let it rest.",
        "Season with salt, pepper and half a lemon.",
        "Serves {n}; keeps for {m} days in the fridge.",
    ),
    "maths": (
        "If a train covers {n}0 km in {m} hours, its mean speed is {n}0/{m} km/h.",
        "Ann has {n} apples and gives {m} away, so {n} - {m} remain.",
        "{n} * {m} + {n} = ?, and the answer is the sum of both.",
        "Let x = {n}.{m}; then x**2 + 3*x - 1 > 0 for all x > 0.",
    ),
    "german": (
        "Am Morgen lag Nebel über dem Fluss, und die Fähre fuhr nicht.",
        "Der Zug um {n}.{m} Uhr hält nicht in jedem Ort.",
        "Im Jahr 19{n} wurde die Mühle wieder aufgebaut.",
    ),
    "french": (
        "Le marché ouvre à huit heures, sauf le lundi.",
        "Il a neigé pendant {n} jours, puis le vent est tombé.",
        "La salle compte {n}{m} places, toutes occupées ce soir-là.",
    ),
    "spanish": (
        "La biblioteca cierra a las {n} y abre de nuevo a las {m}.",
        "El río creció dos metros en una noche.",
        "Nadie supo quién había pintado la puerta de azul.",
    ),
    "russian": (
        "Поезд пришёл в {n} часов, но на платформе никого не было.",
        "В книге {n}{m} страниц, и ни одной картинки.",
        "Зимой озеро замерзает до самого дна.",
    ),
    "chinese": ("早上有雾，渡船没有开。", "他在山上住了{n}年，每天写一页。", "这座桥建于19{n}年，长{m}0米。"),
    "japanese": ("朝は霧が深く、船は出なかった。", "駅まで歩いて{n}分かかります。", "この本は{n}{m}ページあります。"),
    "arabic": ("كان الضباب كثيفا في الصباح.", "انتظرنا القطار {n} دقيقة ثم عدنا.", "في المكتبة {n}{m} كتابا قديما."),
    "hindi": ("सुबह नदी पर कोहरा था।", "गाड़ी {n} मिनट देर से आई।", "इस किताब में {n}{m} पन्ने हैं।"),
    "python": (
        "def area(width: float, height: float) -> float:\n    return width * height\n",
        "for index, row in enumerate(rows):\n    totals[index % {n}] += row.amount\n",
        "assert len(values) == {n}, f'got {len(values)}'\n",
        "model.fit(x, y, epochs={n}, batch_size={m})\n",
        "with path.open(encoding='utf-8') as lines:\n    count = sum(1 for _ in lines)\n",
    ),
    "javascript": (
        "const total = items.reduce((sum, item) => sum + item.price, 0);\n",
        "if (count > {n}) { render(list.slice(0, {m})); }\n",
        "export default function Page({ title }) { return title; }\n",
    ),
    "sql": (
        "SELECT name, COUNT(*) FROM visits WHERE year = 20{n} GROUP BY name;\n",
        "UPDATE beds SET free = free - 1 WHERE ward = {n};\n",
        "CREATE INDEX visits_by_day ON visits (day, ward);\n",
    ),
    "shell": (
        'for file in *.csv; do wc -l "$file"; done\n',
        "tar -czf backup-{n}.tar.gz data/ && ls -lh backup-{n}.tar.gz\n",
        "sed -i 's/foo/bar/g' notes-{m}.txt\n",
    ),
    "table": (
        "| ward | beds | free |\n|---|---|---|\n| A | {n} | {m} |\n| B | {m} | 3 |\n",
        "year,births,deaths\n19{n},{n}{m}1,{m}{n}7\n20{m},{m}{m}2,{n}{n}4\n",
    ),
}


def ordinary_text(generator: random.Random, kind: str) -> str:
    """Return a text of four to seven sentences or pieces of a kind."""
    pieces = generator.choices(_SENTENCES[kind], k=generator.randint(4, 7))
    filled = [
        piece.replace("{n}", str(generator.randint(11, 98))).replace("{m}", str(generator.randint(2, 9)))
        for piece in pieces
    ]
    return ("" if filled[0].endswith("\n") else " ").join(filled)


KINDS: tuple[str, ...] = tuple(_SENTENCES)
