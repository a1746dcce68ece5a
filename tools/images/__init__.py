"""The container images: their wheels, their base, how they are built, and the test that uses them."""
