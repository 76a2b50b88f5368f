"""A run that follows a file: `cas run --config configured.yaml -- python configured.py`.

Other values: `-p training.lr=0.05`, `--env testing`. With `--env broken` the training diverges: the
watch of the config sees it, the program gives up, and the run is marked as failed.
"""

import math

import cas


def main() -> None:
    config = cas.config("configured.yaml")
    lr, steps = config["training.lr"], config["training.steps"]
    with cas.track(config=config) as run:
        weight, step = 3.0, 0
        for step in range(steps):
            loss = weight * weight
            run.log({"loss": loss}, step)
            weight -= lr * 2 * weight
            if not math.isfinite(weight):
                run.alert("diverged", f"at step {step} with a learning rate of {lr}")
                raise ArithmeticError(f"the loss is no number any more at step {step}")
        run.save_checkpoint(model={"weight": weight}, step=step, metrics={"distance": abs(weight)})


if __name__ == "__main__":
    main()
