// The engine's worker: one model. It hears the page between two calls of the engine.

import { TwinferError, aborted, fromPlain, toPlain } from './errors.js';
import { load } from './load.js';
import type { Calls, Event, FromWorker, LoadRequest, ToWorker } from './protocol.js';
import { instantiate, lastPanic, type Engine, type Wasm } from './wasm.js';

const send = (message: FromWorker) => postMessage(message);

let wasm: Wasm | null = null;
let build = '';
let threads = 1;
let engine: Engine | null = null;

/** What can be aborted, by the call's number. */
const running = new Map<number, AbortController>();

/** Chunks of a stream that the page reads: asked for one at a time. */
const streams = new Map<number, { resolve: (bytes: Uint8Array | null) => void; reject: (error: unknown) => void }>();

/** Calls are done one after the other: there is one engine. */
let turn: Promise<void> = Promise.resolve();

/** Lets messages of the page in. Timers would wait for milliseconds. */
const channel = new MessageChannel();
let awake: () => void = () => undefined;
channel.port1.onmessage = () => awake();
function breathe(): Promise<void> {
  return new Promise((resolve) => {
    awake = resolve;
    channel.port2.postMessage(null);
  });
}

addEventListener('message', (message: MessageEvent<ToWorker>) => {
  const request = message.data;
  switch (request.type) {
    case 'start':
      void start(request);
      break;
    case 'call':
      running.set(request.id, new AbortController());
      turn = turn.then(() => answer(request.id, request.op, request.argument));
      break;
    case 'abort':
      running.get(request.id)?.abort();
      streams.get(request.id)?.reject(aborted());
      break;
    case 'chunk': {
      const waiting = streams.get(request.id);
      streams.delete(request.id);
      if (request.error) {
        waiting?.reject(fromPlain(request.error));
      } else {
        waiting?.resolve(request.bytes);
      }
      break;
    }
  }
});

/** Takes a lock for as long as this worker lives: the page waits for it and so learns of every end, also one without an event. */
function hold(lock: string): Promise<void> {
  return new Promise((held) => {
    const forever = () => {
      held();
      return new Promise<void>(() => undefined);
    };
    // Without locks, or where the page may not use them, it does not wait for this one either.
    (navigator.locks?.request(lock, forever) ?? Promise.reject()).catch(held);
  });
}

async function start(request: ToWorker & { type: 'start' }): Promise<void> {
  const held = hold(request.lock);
  try {
    build = request.build;
    threads = request.threads;
    wasm = await instantiate(request.build);
    // Before the page starts the team's other workers, which ask for their part in it.
    wasm.startTeam(threads);
    const shared = threads > 1;
    // Not before: the page would get the lock that it waits for, and take this worker for dead.
    await held;
    send({ type: 'ready', module: shared ? wasm.module : null, memory: shared ? wasm.memory : null });
  } catch (error) {
    send({ type: 'dead', message: lastPanic || toPlain(error).message });
  }
}

async function answer(id: number, op: keyof Calls, argument: unknown): Promise<void> {
  const controller = running.get(id) ?? new AbortController();
  const { signal } = controller;
  const tell = (event: Event) => send({ type: 'event', id, event });
  try {
    if (signal.aborted) {
      throw aborted();
    }
    send({ type: 'result', id, value: await perform(op, argument, id, signal, tell) });
  } catch (error) {
    const plain = toPlain(error);
    if (plain.code === 'crashed') {
      send({ type: 'dead', message: lastPanic || plain.message });
    } else {
      send({ type: 'error', id, error: plain });
    }
  } finally {
    running.delete(id);
    streams.delete(id);
  }
}

async function perform(
  op: keyof Calls,
  argument: unknown,
  id: number,
  signal: AbortSignal,
  tell: (event: Event) => void,
): Promise<unknown> {
  if (op === 'load') {
    if (wasm === null) {
      throw new TwinferError('input', 'the engine was not started');
    }
    engine = await load(argument as LoadRequest, {
      wasm,
      signal,
      chunks: () =>
        new Promise((resolve, reject) => {
          if (signal.aborted) {
            reject(aborted());
            return;
          }
          streams.set(id, { resolve, reject });
          tell({ type: 'wanted' });
        }),
      tell: (progress) => tell({ type: 'progress', progress }),
    });
    return { ...JSON.parse(engine.info()), build };
  }
  if (engine === null) {
    throw new TwinferError('input', 'no model was loaded');
  }
  switch (op) {
    case 'generate':
      return generate(engine, argument as Calls['generate'][0], signal, tell);
    case 'tokenize': {
      const { text, addSpecial, parseSpecial } = argument as Calls['tokenize'][0];
      return Array.from(engine.tokenize(text, addSpecial, parseSpecial));
    }
    case 'detokenize': {
      const { tokens, special } = argument as Calls['detokenize'][0];
      return engine.detokenize(Uint32Array.from(tokens), special);
    }
    case 'evaluate':
      return evaluate(engine, argument as Calls['evaluate'][0], signal);
    case 'embed':
      return embed(engine, argument as Calls['embed'][0], signal);
    case 'record':
      return record(engine, argument as Calls['record'][0], signal, tell);
  }
}

/** The clock on the wall here, as the seconds since 1970 that such a clock would show in UTC. */
function wallClock(): number {
  const now = new Date();
  const date = [now.getFullYear(), now.getMonth(), now.getDate()] as const;
  return Date.UTC(...date, now.getHours(), now.getMinutes(), now.getSeconds()) / 1000;
}

async function generate(
  engine: Engine,
  request: Record<string, unknown>,
  signal: AbortSignal,
  tell: (event: Event) => void,
): Promise<Calls['generate'][1]> {
  const { promptTokens, cachedTokens } = JSON.parse(engine.begin(JSON.stringify(request), wallClock())) as {
    promptTokens: number;
    cachedTokens: number;
  };
  const prompt = (done: number) => tell({ type: 'prompt', done, total: promptTokens, cached: cachedTokens });
  prompt(cachedTokens);
  while (!engine.prefill()) {
    await listen(signal);
  }
  prompt(promptTokens);
  for (;;) {
    const [token, text] = JSON.parse(engine.nextOutput()) as [number | string, string];
    if (typeof token === 'string') {
      return { reason: token, tail: text };
    }
    tell({ type: 'token', token, text });
    await listen(signal);
  }
}

async function evaluate(
  engine: Engine,
  { tokens, batchSize, wanted }: Calls['evaluate'][0],
  signal: AbortSignal,
): Promise<string> {
  engine.beginEvaluation(Uint32Array.from(tokens), batchSize, wanted);
  for (;;) {
    const done = engine.advanceEvaluation();
    if (done !== undefined) {
      return done;
    }
    await listen(signal);
  }
}

async function embed(engine: Engine, request: Calls['embed'][0], signal: AbortSignal): Promise<Calls['embed'][1]> {
  const width = engine.beginEmbedding(JSON.stringify(request));
  const all: Float32Array[][] = [];
  try {
    for (;;) {
      const next = engine.advanceEmbedding() as [Uint32Array, Float32Array] | undefined;
      if (next === undefined) {
        return all;
      }
      const [counts, values] = next;
      let done = 0;
      for (const count of counts) {
        const vectors = Array.from({ length: count }, (_, i) => values.slice((done + i) * width, (done + i + 1) * width));
        all.push(vectors);
        done += count;
      }
      await listen(signal);
    }
  } finally {
    engine.endEmbedding();
  }
}

async function record(
  engine: Engine,
  against: string | null,
  signal: AbortSignal,
  tell: (event: Event) => void,
): Promise<Calls['record'][1]> {
  engine.beginRecord(against ?? undefined);
  try {
    for (;;) {
      const { done, total, record, difference } = JSON.parse(engine.advanceRecord()) as {
        done: number;
        total: number;
      } & Partial<Calls['record'][1]>;
      tell({ type: 'recorded', done, total });
      if (record !== undefined) {
        return { record, difference: difference ?? null };
      }
      await listen(signal);
    }
  } finally {
    engine.endRecord();
  }
}

async function listen(signal: AbortSignal): Promise<void> {
  await breathe();
  if (signal.aborted) {
    throw aborted();
  }
}
