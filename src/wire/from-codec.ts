/**
 * From the generated code's messages to the frames that the layers above see. Runs on what has been decoded and has
 * passed the spec's rules.
 */
import type { Batch as CodecBatch } from "../../generated/ts/codecs/hawser/peer/v1/frames.js";
import { errorOfWireCode } from "../errors/index.js";
import type { CodecKind } from "./codecs.js";
import { capabilitiesOfCodes, compressionOfCode, deliveryOfCode } from "./enums.js";
import { numberOfUint64 } from "./numbers.js";
import type { Batch, Frame, RefuseFrame } from "./types.js";

/**
 * The frame for a decoded value.
 *
 * @throws WireError `protocol_violation` for a number above 2^53 − 1 and for an unknown delivery or compression
 */
export function frameOfCodec(decoded: CodecKind): Frame {
  switch (decoded.$case) {
    case "batch":
      return { kind: "batch", value: batchOfCodec(decoded.value) };
    case "ack": {
      const { epoch, number, credit, backlog, busy, live } = decoded.value;
      return {
        kind: "ack",
        value: {
          epoch: numberOfUint64(epoch, "Ack.epoch"),
          number: numberOfUint64(number, "Ack.number"),
          credit: numberOfUint64(credit, "Ack.credit"),
          backlog: numberOfUint64(backlog, "Ack.backlog"),
          busy,
          live,
        },
      };
    }
    case "challenge": {
      const { nonce, minVersion, maxVersion, capabilities } = decoded.value;
      return {
        kind: "challenge",
        value: { nonce, minVersion, maxVersion, capabilities: capabilitiesOfCodes(capabilities) },
      };
    }
    case "hello": {
      const { epoch, capabilities, ...same } = decoded.value;
      return {
        kind: "hello",
        value: {
          ...same,
          epoch: numberOfUint64(epoch, "Hello.epoch"),
          capabilities: capabilitiesOfCodes(capabilities),
        },
      };
    }
    case "welcome": {
      const { cursorEpoch, cursor, backlog, credit, maxMessageBytes, capabilities, mac } = decoded.value;
      return {
        kind: "welcome",
        value: {
          cursorEpoch: numberOfUint64(cursorEpoch, "Welcome.cursor_epoch"),
          cursor: numberOfUint64(cursor, "Welcome.cursor"),
          backlog: numberOfUint64(backlog, "Welcome.backlog"),
          credit: numberOfUint64(credit, "Welcome.credit"),
          maxMessageBytes: numberOfUint64(maxMessageBytes, "Welcome.max_message_bytes"),
          capabilities: capabilitiesOfCodes(capabilities),
          mac,
        },
      };
    }
    case "refuse":
      return { kind: "refuse", value: refuseOfWire(decoded.value.code, decoded.value.message) };
    case "goLive":
      return { kind: "goLive", value: { epoch: numberOfUint64(decoded.value.epoch, "GoLive.epoch") } };
    case "ping":
      return { kind: "ping", value: { token: decoded.value.token } };
    case "pong":
      return { kind: "pong", value: { token: decoded.value.token } };
    case "goodbye":
      return {
        kind: "goodbye",
        value: {
          epoch: numberOfUint64(decoded.value.epoch, "Goodbye.epoch"),
          number: numberOfUint64(decoded.value.number, "Goodbye.number"),
        },
      };
  }
}

function batchOfCodec(batch: CodecBatch): Batch {
  const { compressions, headers } = batch;
  return {
    epoch: numberOfUint64(batch.epoch, "Batch.epoch"),
    delivery: deliveryOfCode(batch.delivery),
    firstNumber: numberOfUint64(batch.firstNumber, "Batch.first_number"),
    topicKey: batch.topicKey,
    payloads: batch.payloads,
    compressions:
      compressions.length === 0
        ? undefined
        : compressions.map(({ index, compression, uncompressedBytes }) => ({
            index,
            compression: compressionOfCode(compression),
            uncompressedBytes: numberOfUint64(uncompressedBytes, "PayloadCompression.uncompressed_bytes"),
          })),
    headers:
      headers.length === 0
        ? undefined
        : headers.map(({ index, headers }) => ({ index, headers: headers.map(({ name, value }) => [name, value]) })),
  };
}

/** A newer side may refuse with a code that is not known here: the connection is lost either way, and the text says why. */
function refuseOfWire(wireCode: number, message: string): RefuseFrame {
  const entry = errorOfWireCode(wireCode);
  if (entry !== undefined) return { code: entry.code, message };
  return { code: "connection_lost", message: `refused with the unknown code ${wireCode}: ${message}` };
}
