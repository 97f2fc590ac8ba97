// Runs in the page: one function per engine, each loads the model, warms up, and measures a prompt and an answer.

/** Tokens before which nothing is timed: memory is touched, threads are awake, code is optimised. */
const WARM_UP = { prompt: 'It was a dark and stormy night, and nobody', tokens: 8 };

async function twinfer({ model: url, threads, prompt, decode, contextLength }) {
  const { Model } = await import('/twinfer/index.js');
  const begun = performance.now();
  const model = await Model.load(url, { threads, contextLength, cache: false });
  const loadMs = performance.now() - begun;
  let firstTokenAt;
  const run = async (text, maxTokens) => {
    const generation = model.generate(text, { maxTokens, temp: 0, ignoreEos: true });
    for await (const piece of generation) firstTokenAt ??= piece && Date.now();
    return generation.result;
  };
  await run('It', 1);
  await run(WARM_UP.prompt, WARM_UP.tokens);
  const result = await run(prompt, decode);
  const { backend, build, threads: used } = model.info;
  model.free();
  return {
    loadMs,
    firstTokenAt,
    promptTokens: result.promptTokens - result.cachedTokens,
    promptMs: result.promptMs,
    tokens: result.tokens,
    decodeMs: result.generateMs,
    engine: `${backend}, build ${build}, ${used} threads`,
  };
}

async function wllama({ model: url, threads, prompt, decode, contextLength }) {
  const { Wllama } = await import('/wllama/index.js');
  const begun = performance.now();
  const blob = await (await fetch(url)).blob();
  const engine = new Wllama({ default: '/wllama/wasm/wllama.wasm' }, { suppressNativeLog: true });
  await engine.loadModel([blob], { n_ctx: contextLength, n_batch: 512, n_threads: threads, n_gpu_layers: 0 });
  const loadMs = performance.now() - begun;
  const run = (text, tokens) =>
    engine.createCompletion({
      prompt: text,
      max_tokens: tokens,
      temperature: 0,
      ignore_eos: true,
      cache_prompt: false,
    });
  await run('It', 1);
  const firstTokenAt = Date.now();
  await run(WARM_UP.prompt, WARM_UP.tokens);
  const { timings } = await run(prompt, decode);
  const used = engine.getNumThreads();
  const multi = engine.isMultithread();
  await engine.exit();
  return {
    loadMs,
    firstTokenAt,
    promptTokens: timings.prompt_n,
    promptMs: timings.prompt_ms,
    tokens: timings.predicted_n,
    decodeMs: timings.predicted_ms,
    engine: multi ? `${used} threads` : 'one thread',
  };
}

/** A text of about so many tokens of the model, as its own tokenizer counts them. */
async function promptOf({ model: url, tokens }) {
  const { Model } = await import('/twinfer/index.js');
  const model = await Model.load(url, { threads: 1, contextLength: 64, cache: false });
  const words = 'the river was wide and slow that year so we walked along its bank until evening came'.split(' ');
  let text = '';
  for (let i = 0; (await model.tokenize(text)).length < tokens; i++) {
    text += ` ${words[(i * 7 + Math.floor(i / 5)) % words.length]}`;
  }
  model.free();
  return text.trim();
}

window.measuring = { twinfer, wllama, promptOf };
