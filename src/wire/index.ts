/**
 * The wire: bytes in, frames out, and back. Framing, the codecs bound to the spec's rules, compression, addresses. Knows
 * no socket and no clock.
 *
 * A frame is `{ $case, value }`, and both are the generated code's own types: what `frames.proto` says of a field is what
 * every layer above sees, from the socket to the channel. Nothing is renamed or copied on the way.
 *
 * The payloads of a batch are copied into what leaves, and their bytes are the caller's again. Incoming, they are views into
 * a copy of the frame, valid as long as they are referenced; each view keeps its whole frame alive, so copy what is kept for
 * long.
 */
/** The number of an error's code, as a Refuse carries it. */
export { ErrorCode as ErrorNumber } from "../../generated/ts/codecs/hawser/errors/v1/errors.js";
export {
  type Ack,
  type Answer,
  type Batch,
  type Cancel,
  Capability,
  type Challenge,
  Compression,
  Delivery,
  type Frame as FrameEnvelope,
  type GoLive,
  type Goodbye,
  type Header,
  type Hello,
  type PayloadCompression,
  type PayloadHeaders,
  type Ping,
  type Pong,
  type Refuse,
  type Request,
  type Welcome,
} from "../../generated/ts/codecs/hawser/peer/v1/frames.js";
export { type Address, formatAddress, isLoopback, parseAddress } from "./address.js";
export { chooseCompression, ownCapabilities } from "./capabilities.js";
export { compress, decompress } from "./compression.js";
export { decodeFrame, FrameDecoder, type FrameDecoderOptions } from "./frame-decoder.js";
export { FrameEncoder, greatestFrameBytes, type Output, recycle } from "./frame-encoder.js";
export { checkFrame, type Frame, type FrameKind, type HelloFields, type WelcomeFields } from "./frames.js";
