/**
 * Wire protocol: framing, codecs with the rules of the spec, compression, addresses. Uses no socket and no clock.
 *
 * A frame is `{ $case, value }` with the types of the generated code. So every layer, from the socket to the channel,
 * uses the fields of `frames.proto` without renaming or copying them.
 *
 * Payloads to send are copied, so that the caller may reuse their bytes. Received payloads are views of a copy of the
 * frame. They stay valid while referenced, and each view keeps its whole frame in memory: copy payloads that are kept
 * for long.
 */
/** Number of an error's code, as carried by a Refuse. */
export { ErrorCode as ErrorNumber } from "../../../generated/ts/codecs/hawser/errors/v1/errors.js";
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
} from "../../../generated/ts/codecs/hawser/peer/v1/frames.js";
export { type Address, formatAddress, isLoopback, parseAddress } from "./address.js";
export { chooseCompression, ownCapabilities } from "./capabilities.js";
export { compress, decompress } from "./compression.js";
export { decodeFrame, FrameDecoder, type FrameDecoderOptions } from "./frame-decoder.js";
export { FrameEncoder, maxPrefixedFrameBytes, type Output, recycle } from "./frame-encoder.js";
export { checkFrame, type Frame, type FrameKind, type HelloFields, type WelcomeFields } from "./frames.js";
