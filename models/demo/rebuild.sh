#!/bin/sh
# Rebuilds work/twinfer-demo-f32.gguf from nothing. Needs requirements.txt installed.
set -e
cd "$(dirname "$0")"
# The language of the stories first; then, on chats full of names, to say again what was
# read, which stories alone teach very slowly; then everything together, in long rows.
python train.py --steps 250 --decay-from 1 --long-from 1
python train.py --steps 100 --decay-from 1 --long-from 1 --names 0.75 --seed 3 --resume work/checkpoint.npz
python train.py --steps 450 --long-from 0 --seed 4 --resume work/checkpoint.npz
python export.py
python run.py --reference
