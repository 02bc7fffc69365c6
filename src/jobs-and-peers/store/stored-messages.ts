/** Messages that wait for their listener. */
import { Compression } from "../../../generated/ts/codecs/hawser/peer/v1/frames.js";
import { type DrainRowsResult, storeFunctions } from "../../../generated/ts/rows/peer.js";
import { HawserError } from "../../foundation/errors/index.js";
import { sqlstateOf, untranslatable } from "../../foundation/postgres/index.js";
import type { StoredRow } from "../channel/index.js";
import type { Position } from "./channels.js";
import type { Database } from "./database.js";
import { escaped } from "./leaving.js";
import { type CheckedHeaders, checkedHeaders, faultOfBatch, type HeaderPair, messageOf } from "./row-faults.js";
import type { WriterName } from "./transaction.js";

/** Maximum number of messages of one drain query. */
export const drainRows = 4_096;
/** Maximum payload bytes of one drain query; a single row always fits. */
export const drainBytes = 8 * 1024 * 1024;
/** Maximum number of messages of one insert. */
export const insertRows = 4_096;
/** Maximum payload bytes of one insert; a single message always fits. */
export const insertBytes = 16 * 1024 * 1024;
/** Maximum number of messages up to which a backlog is counted. */
export const backlogCountRows = 4_096;

/** Compression of a stored payload: 0 for none, 1 for gzip. */
type StoredCodec = 0 | 1;

/** Message to store. */
export interface MessageToStore {
  readonly topicId: number;
  /** Payload, compressed according to `codec`. Not kept after the call. */
  readonly payload: Uint8Array;
  /** Default 0. */
  readonly codec?: StoredCodec;
  readonly headers?: readonly HeaderPair[];
}

/** Limits of one read. At least one row of the table is read, however many messages it has. */
export interface DrainLimits {
  /** Maximum number of messages. Default `drainRows`. */
  readonly maxRows?: number;
  /** Maximum payload bytes as stored. Default `drainBytes`. */
  readonly maxBytes?: number;
}

/** Next stored messages of a channel, read in one snapshot. */
export interface DrainedPage {
  /** Messages in the order of (epoch, number). */
  readonly rows: StoredRow[];
  /** Messages after the last row, counted up to `backlogCountRows`. */
  readonly remaining: number;
}

/** Message store of a database. */
export function storedMessages(database: Database) {
  return {
    /**
     * Stores messages of one channel under contiguous numbers from `firstNumber` in the lease's epoch. Messages that
     * are already stored are kept, so that a call with an unknown outcome can be repeated.
     *
     * @returns `fenced` if another process owns the name; nothing was written then
     * @throws HawserError `store_failed`; its `outcome` is `unknown` if the messages may have been stored, and absent if
     * they certainly were not
     */
    async storeMessages(
      lease: WriterName,
      channelId: number,
      firstNumber: number,
      messages: readonly MessageToStore[],
    ): Promise<"stored" | "fenced"> {
      if (messages.length === 0) return "stored";
      const lengths = messages.map(({ payload }) => payload.length);
      const range = `${firstNumber} to ${firstNumber + messages.length - 1}`;
      const functions = storeFunctions(database.caller(`store messages ${range} of channel ${channelId}`));
      const store = (headers: string | null) =>
        functions.storeMessages({
          name: lease.name,
          epoch: BigInt(lease.epoch),
          channelId,
          firstNumber: BigInt(firstNumber),
          topicIds: messages.map(({ topicId }) => topicId),
          lengths,
          codecs: messages.map(({ codec }) => codec ?? 0),
          headers,
          payloads: Buffer.concat(messages.map(({ payload }) => payload)),
        });
      const { held } = await store(headersJson(messages)).catch((error) => {
        // A header that the database's encoding lacks must not keep the channel from being stored.
        if (sqlstateOf(error) !== untranslatable) throw error;
        return store(headersJson(messages, asciiText));
      });
      return held ? "stored" : "fenced";
    },
    /** Reads the next messages after a position and the number of messages behind them, in one snapshot. */
    async drain(
      channelId: number,
      after: Position,
      { maxRows = drainRows, maxBytes = drainBytes }: DrainLimits = {},
    ): Promise<DrainedPage> {
      if (maxRows < 1) throw new HawserError("invalid_argument", `maxRows is ${maxRows}; it must be at least 1`);
      const action = `read the stored messages of channel ${channelId}`;
      const stored = await storeFunctions(database.caller(action)).drainRows({
        channelId,
        epoch: BigInt(after.epoch),
        number: BigInt(after.number),
        maxMessages: maxRows,
        maxBytes: BigInt(maxBytes),
        countMessages: backlogCountRows,
      });
      const counted = Number(stored[0]?.counted ?? 0);
      const read = stored.reduce((sum, row) => sum + messagesAfter(row, after), 0);
      return { rows: messagesOf(stored, after), remaining: Math.min(counted - read, backlogCountRows) };
    },
    /** Number of stored messages after a position, counted up to `backlogCountRows`. */
    async backlogOf(channelId: number, after: Position): Promise<number> {
      const action = `count the stored messages of channel ${channelId}`;
      const { counted } = await storeFunctions(database.caller(action)).countMessages({
        channelId,
        epoch: BigInt(after.epoch),
        number: BigInt(after.number),
        countRows: backlogCountRows,
      });
      return Number(counted);
    },
  };
}

/** Number of messages of a row that are after the position, counted as the database does. */
function messagesAfter({ epoch, number, messages }: DrainRowsResult, after: Position): number {
  return Number(epoch) === after.epoch ? Math.min(messages, Number(number) - after.number) : messages;
}

/**
 * Unpacks the messages of rows. The first messages of a row may be at or before the position. They may also be in the
 * previous row, if a call was repeated with more messages while the first call was still running.
 */
function messagesOf(rows: readonly DrainRowsResult[], after: Position): StoredRow[] {
  const messages: StoredRow[] = [];
  let last = after;
  for (const row of rows) {
    const { messages: count, lengths, topicId, codec, payload } = row;
    const epoch = Number(row.epoch);
    const lastNumber = Number(row.number);
    const known = epoch === last.epoch ? last.number : 0;
    last = { epoch, number: lastNumber };
    const add = (number: number, bytes: Uint8Array, headers: CheckedHeaders): void => {
      const encoding =
        codec === 0 ? undefined : { compression: Compression.GZIP, uncompressedBytes: gzipLength(bytes) };
      messages.push(messageOf({ epoch, number }, topicId, bytes, encoding, headers));
    };
    if (count === 1) {
      add(lastNumber, payload, checkedHeaders(row.headers));
      continue;
    }
    const faultOfAll = faultOfBatch(row);
    if (faultOfAll !== undefined) {
      let whole = payload;
      for (let number = Math.max(known, lastNumber - count) + 1; number <= lastNumber; number++) {
        add(number, whole, { headers: [], fault: faultOfAll });
        whole = noPayload;
      }
      continue;
    }
    let offset = 0;
    for (let index = 0, number = lastNumber - count + 1; index < count; index++, number++) {
      const end = offset + (lengths[index] as number);
      if (number > known) {
        const own = row.headers === null ? null : (row.headers as unknown[])[index];
        add(number, payload.subarray(offset, end), checkedHeaders(own));
      }
      offset = end;
    }
  }
  return messages;
}

const noPayload = new Uint8Array();

/** Uncompressed length of a gzip stream, modulo 2^32, from its last 4 bytes (RFC 1952). */
function gzipLength(payload: Uint8Array): number {
  if (payload.length < 4) return 0;
  return new DataView(payload.buffer, payload.byteOffset, payload.length).getUint32(payload.length - 4, true);
}

/** @param form converts the headers of one message */
function headersJson(
  messages: readonly MessageToStore[],
  form: (headers: readonly HeaderPair[]) => unknown = (headers) => headers,
): string | null {
  if (!messages.some(({ headers }) => headers !== undefined && headers.length > 0)) return null;
  return JSON.stringify(
    messages.map(({ headers }) => (headers === undefined || headers.length === 0 ? null : form(headers))),
  );
}

/** Headers as a JSON text in ASCII, if they are not in ASCII themselves. `checkedHeaders` reads both. */
function asciiText(headers: readonly HeaderPair[]): unknown {
  const json = JSON.stringify(headers);
  const ascii = escaped(json);
  return ascii === json ? headers : ascii;
}
