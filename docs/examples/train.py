"""Train a small network on scans of handwritten digits; the lines with `cas` or `run` track it."""

import argparse

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import cas

parser = argparse.ArgumentParser()
parser.add_argument("--name")
parser.add_argument("--lr", type=float, default=1e-3)
parser.add_argument("--epochs", type=int, default=6)
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--fork", metavar="REV", help="continue from this checkpoint")
args = parser.parse_args()
params = {"lr": args.lr, "epochs": args.epochs, "batch": 32, "hidden": 256}

if args.fork:
    run = cas.fork(args.fork, name=args.name, params=params)
else:
    run = cas.track("digits", name=args.name, params=params, seed=args.seed)

with run:
    digits = load_digits()
    run.track_dataset({"images": digits.data, "labels": digits.target}, name="digits")
    x = torch.tensor(digits.data, dtype=torch.float32) / 16
    y = torch.tensor(digits.target)
    train, val = TensorDataset(x[:1400], y[:1400]), (x[1400:], y[1400:])

    hidden = params["hidden"]
    model = nn.Sequential(
        nn.Linear(64, hidden),
        nn.ReLU(),
        nn.Linear(hidden, hidden),
        nn.ReLU(),
        nn.Linear(hidden, 10),
    )
    optimizer = torch.optim.Adam(model.parameters(), lr=args.lr)
    first = 0
    if args.fork:
        checkpoint = run.load_checkpoint(model=model, optimizer=optimizer)
        optimizer.param_groups[0]["lr"] = args.lr
        first = checkpoint.epoch + 1

    loader = DataLoader(train, batch_size=params["batch"], shuffle=True)
    for epoch in range(first, args.epochs):
        for images, labels in loader:
            loss = nn.functional.cross_entropy(model(images), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            run.log({"loss": loss.item()})
        with torch.no_grad():
            scores = model(val[0])
            val_loss = nn.functional.cross_entropy(scores, val[1]).item()
            accuracy = (scores.argmax(1) == val[1]).float().mean().item()
        print(f"epoch {epoch}: val_loss {val_loss:.4f}, accuracy {accuracy:.4f}")
        run.save_checkpoint(
            model=model,
            optimizer=optimizer,
            epoch=epoch,
            metrics={"val_loss": val_loss, "accuracy": accuracy},
        )
    torch.save(model.state_dict(), "digits.pt")
    run.log_artifact("digits.pt")
