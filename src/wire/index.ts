/**
 * The wire: bytes in, bytes out. Framing, codecs bound to the spec's limits, compression, addresses. Knows no socket and
 * no clock.
 */
export {
  type ErrorCode,
  type ErrorEntry,
  type ErrorOutcome,
  HawserError,
  type HawserErrorOptions,
  WireError,
} from "../errors/index.js";
export { type Address, formatAddress, isLoopback, parseAddress } from "./address.js";
export { checkFrame } from "./check-outgoing.js";
export { chooseCompression, compress, decompress, ownCapabilities } from "./compression.js";
export { decodeFrame, FrameDecoder, type FrameDecoderOptions } from "./frame-decoder.js";
export { FrameEncoder, referencedPayloadBytes } from "./frame-encoder.js";
export { type Output, recycle } from "./output-blocks.js";
export type {
  AckFrame,
  Batch,
  Capability,
  ChallengeFrame,
  Compression,
  Delivery,
  Frame,
  FrameKind,
  FrameValues,
  GoLiveFrame,
  GoodbyeFrame,
  Headers,
  HelloFields,
  HelloFrame,
  IncomingBatch,
  OutgoingBatch,
  PayloadCompression,
  PayloadHeaders,
  PingFrame,
  RefuseFrame,
  WelcomeFields,
  WelcomeFrame,
} from "./types.js";
