// twinfer in the browser: what the package exports.

export { cache, type CachedModel } from './cache.js';
export { TwinferError, type ErrorCode } from './errors.js';
export { features, type Features } from './features.js';
export { Generation, Model } from './model.js';
export type {
  BuildName,
  CacheType,
  DigestRecord,
  EmbedOptions,
  EvaluateOptions,
  GenerateOptions,
  GenerationResult,
  LoadOptions,
  LoadProgress,
  MemoryPlan,
  Message,
  ModelHeader,
  ModelInfo,
  ModelSource,
  Piece,
  Pooling,
  RecordOptions,
  SamplingOptions,
  Verdict,
} from './types.js';
