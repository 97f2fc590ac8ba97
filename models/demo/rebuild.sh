#!/bin/sh
# Rebuilds work/twinfer-demo-f32.gguf from nothing. Needs requirements.txt installed.
set -e
cd "$(dirname "$0")"
from="--resume work/checkpoint.npz"
# The language of the stories.
python train.py --steps 250 --decay-from 1 --long-from 1
# Chats full of names: to say again what was read, which stories alone teach very slowly.
python train.py --steps 100 --seed 3 $from --names 0.75 --decay-from 0.99 --long-from 1
# Everything together, in rows as long as the context.
python train.py --steps 500 --seed 4 $from --long-from 0
# More of what is still weak: keeping to the topic asked for, sums, opposites, counting.
python train.py --steps 350 --seed 6 $from --matrix-lr 0.01 --other-lr 0.0015 \
    --names 0.03 --openings 0.4 --questions 0.25 --long-from 1
python train.py --steps 300 --seed 7 $from --matrix-lr 0.008 --other-lr 0.001 \
    --names 0.02 --openings 0.35 --questions 0.08 --decay-from 0.2 --long-from 0
python export.py
python run.py --reference
python check.py
