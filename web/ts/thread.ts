// A worker of the engine's team: enters the shared memory and stays until the page ends it.

import type { FromThread, ToThread } from './protocol.js';
import { instantiate, lastPanic } from './wasm.js';

addEventListener('message', async (message: MessageEvent<ToThread>) => {
  const { build, module, memory, index } = message.data;
  try {
    const wasm = await instantiate(build, { module, memory });
    wasm.runWorker(index);
  } catch (error) {
    // A trap: the others would wait for this one for ever, so the page ends them all.
    const dead: FromThread = { type: 'dead', message: lastPanic || String(error) };
    postMessage(dead);
  }
});
