/**
 * From the frames that the layers above write to the generated code's messages.
 */
import { errorTable } from "../errors/index.js";
import type { CodecKind, CodecValue } from "./codecs.js";
import { codeOfCompression, codeOfDelivery, codesOfCapabilities } from "./enums.js";
import { uint64OfNumber } from "./numbers.js";
import type { Batch, Frame } from "./types.js";

/**
 * The generated code's message for a frame.
 *
 * @throws WireError `invalid_argument` for a number that is no integer from 0 to 2^53 − 1
 */
export function codecOfFrame(frame: Frame): CodecKind {
  switch (frame.kind) {
    case "batch":
      return { $case: "batch", value: codecOfBatch(frame.value) };
    case "ack": {
      const { epoch, number, credit, backlog, busy, live } = frame.value;
      return {
        $case: "ack",
        value: {
          epoch: uint64OfNumber(epoch, "Ack.epoch"),
          number: uint64OfNumber(number, "Ack.number"),
          credit: uint64OfNumber(credit, "Ack.credit"),
          backlog: uint64OfNumber(backlog, "Ack.backlog"),
          busy,
          live,
        },
      };
    }
    case "challenge": {
      const { nonce, minVersion, maxVersion, capabilities } = frame.value;
      return {
        $case: "challenge",
        value: { nonce, minVersion, maxVersion, capabilities: codesOfCapabilities(capabilities) },
      };
    }
    case "hello": {
      const { epoch, capabilities, ...same } = frame.value;
      return {
        $case: "hello",
        value: {
          ...same,
          epoch: uint64OfNumber(epoch, "Hello.epoch"),
          capabilities: codesOfCapabilities(capabilities),
        },
      };
    }
    case "welcome": {
      const { cursorEpoch, cursor, backlog, credit, maxMessageBytes, capabilities, mac } = frame.value;
      return {
        $case: "welcome",
        value: {
          cursorEpoch: uint64OfNumber(cursorEpoch, "Welcome.cursor_epoch"),
          cursor: uint64OfNumber(cursor, "Welcome.cursor"),
          backlog: uint64OfNumber(backlog, "Welcome.backlog"),
          credit: uint64OfNumber(credit, "Welcome.credit"),
          maxMessageBytes: uint64OfNumber(maxMessageBytes, "Welcome.max_message_bytes"),
          capabilities: codesOfCapabilities(capabilities),
          mac,
        },
      };
    }
    case "refuse":
      return {
        $case: "refuse",
        value: { code: errorTable[frame.value.code].wireCode, message: frame.value.message },
      };
    case "goLive":
      return { $case: "goLive", value: { epoch: uint64OfNumber(frame.value.epoch, "GoLive.epoch") } };
    case "ping":
      return { $case: "ping", value: { token: frame.value.token } };
    case "pong":
      return { $case: "pong", value: { token: frame.value.token } };
    case "goodbye":
      return {
        $case: "goodbye",
        value: {
          epoch: uint64OfNumber(frame.value.epoch, "Goodbye.epoch"),
          number: uint64OfNumber(frame.value.number, "Goodbye.number"),
        },
      };
  }
}

/** The generated code's message for a batch. @throws WireError `invalid_argument`, as {@link codecOfFrame} */
export function codecOfBatch(batch: Batch): CodecValue<"batch"> {
  return {
    epoch: uint64OfNumber(batch.epoch, "Batch.epoch"),
    delivery: codeOfDelivery(batch.delivery),
    firstNumber: uint64OfNumber(batch.firstNumber, "Batch.first_number"),
    topicKey: batch.topicKey,
    // The generated type is a mutable array, and the encoder only reads it.
    payloads: batch.payloads as Uint8Array[],
    compressions: (batch.compressions ?? []).map(({ index, compression, uncompressedBytes }) => ({
      index,
      compression: codeOfCompression(compression),
      uncompressedBytes: uint64OfNumber(uncompressedBytes, "PayloadCompression.uncompressed_bytes"),
    })),
    headers: (batch.headers ?? []).map(({ index, headers }) => ({
      index,
      headers: headers.map(([name, value]) => ({ name, value })),
    })),
  };
}
