/**
 * The entry `hawser/frames`, for programs that speak the protocol of peers themselves: `frames.decodeFrame` and
 * `frames.FrameEncoder` are the codec, `frames.checkFrame` checks the rules, and `frames.Ack` is the type of a frame.
 *
 * Experimental: a minor version may change the names and types of this entry. The bytes follow the version of the protocol.
 *
 * @experimental
 */
import * as frames from "./index.js";

export { frames };
