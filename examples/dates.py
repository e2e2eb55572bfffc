r"""A problem of your own: dates from English to German.

    bin/datagen --usr_dir=examples --problem=dates_ende --data_dir=data --inspect=3
    bin/trainer --usr_dir=examples --problem=dates_ende --data_dir=data \
        --model=latent_nat --gin_file=soft_em.gin --gin_file=toy.gin --model_dir=runs/dates
"""

import random

from t2t_vqem import registry
from t2t_vqem.problems.translation import TranslationProblem

NAMES = (
    "January=Januar February=Februar March=März April=April May=Mai June=Juni July=Juli August=August "
    "September=September October=Oktober November=November December=Dezember"
)
MONTHS = dict(name.split("=") for name in NAMES.split())
YEARS = {"train": range(1800, 2000), "val": range(2000, 2010), "test": range(2010, 2020)}


@registry.problems.register("dates_ende")
class DatesEnDe(TranslationProblem):
    vocab_size = 100

    def samples(self, split):
        rng = random.Random(split)
        for _ in range(5000 if split == "train" else 200):
            day, month, year = rng.randint(1, 28), rng.choice(list(MONTHS)), rng.choice(YEARS[split])
            yield f"{month} {day}, {year}", f"{day}. {MONTHS[month]} {year}"
