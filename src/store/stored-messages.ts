/**
 * Messages that wait for their listener.
 */
import { type ConnMessageRow, storeFunctions, tables } from "../../generated/ts/rows/peer.js";
import { storeConstants } from "../../generated/ts/settings/peer.js";
import { StoreError } from "../errors/index.js";
import type { Position } from "./channels.js";
import { columnsOf } from "./column-list.js";
import type { Database } from "./database.js";
import type { WriterName } from "./fence.js";

/** A header: name and value. */
export type HeaderPair = readonly [name: string, value: string];

/** How a stored payload is compressed. */
export type StoredCodec = 0 | 1;

/** A message to store. */
export interface MessageToStore {
  readonly topicKey: number;
  /** Plain, or compressed as `codec` says. Not kept after the call. */
  readonly payload: Uint8Array;
  /** 0: plain, 1: gzip. Default 0. */
  readonly codec?: StoredCodec;
  readonly headers?: readonly HeaderPair[];
}

/** A message read back. */
export interface StoredMessage extends Position {
  readonly topicKey: number;
  readonly payload: Uint8Array;
  readonly codec: number;
  /** Empty: none. */
  readonly headers: readonly HeaderPair[];
}

/** How much to read at once. At least one row is read, whatever its size. */
export interface DrainLimits {
  /** Default `drainRows`. */
  readonly maxRows?: number;
  /** Of the payloads as stored. Default `drainBytes`. */
  readonly maxBytes?: number;
}

/** The next stored messages of a channel, as of one moment. */
export interface DrainedPage {
  /** In the order of (epoch, number). */
  readonly rows: StoredMessage[];
  /** Rows behind the last one, counted up to `backlogCountRows`. */
  readonly remaining: number;
}

/** The message store. */
export interface StoredMessages {
  /**
   * Stores messages of one channel, numbered without a gap from `firstNumber` on in the lease's epoch. Those that are
   * stored already stay as they are, so that a call whose fate is unknown is simply repeated.
   *
   * @returns `fenced` if another process has the name now; then nothing was written
   * @throws StoreError `store_failed`; its `outcome` is `unknown` if the messages may have been stored all the same,
   * and absent if they surely were not
   */
  storeMessages(
    lease: WriterName,
    connectionKey: number,
    firstNumber: number,
    messages: readonly MessageToStore[],
  ): Promise<"stored" | "fenced">;
  /** Reads the next messages after a position, and how many are behind them, in one snapshot. */
  drain(connectionKey: number, after: Position, limits?: DrainLimits): Promise<DrainedPage>;
  /** The stored rows after a position, counted up to `backlogCountRows`. */
  backlogOf(connectionKey: number, after: Position): Promise<number>;
}

const stored = columnsOf<ConnMessageRow>()("epoch", "number", "topic_key", "codec", "headers", "payload");

/** Row comparison, so that the primary key answers it. $1: channel, $2 and $3: the position. */
const behind = `FROM ${tables.connMessage} WHERE connection_key = $1 AND (epoch, number) > ($2, $3)`;

// Never prepared: a plan made while the table was empty would read a full one from end to end.
const sql = {
  drain: `SELECT ${stored.sql("page")},
                 (SELECT count(*) FROM (SELECT ${behind} LIMIT $4::bigint + $6) AS counted) AS total
          FROM (
            SELECT next.*, sum(octet_length(payload)) OVER w AS bytes, row_number() OVER w AS nth
            FROM (SELECT ${stored.sql()} ${behind} ORDER BY epoch, number LIMIT $4) AS next
            WINDOW w AS (ORDER BY epoch, number ROWS UNBOUNDED PRECEDING)
          ) AS page
          WHERE bytes <= $5 OR nth = 1
          ORDER BY epoch, number`,
  backlog: `SELECT count(*) AS rows FROM (SELECT ${behind} LIMIT $4) AS counted`,
} as const;

type DrainRow = [
  epoch: bigint,
  number: bigint,
  topicKey: number,
  codec: number,
  headers: unknown,
  payload: Uint8Array,
  total: bigint,
];

/** The message store of a database. */
export function storedMessages(database: Database): StoredMessages {
  return {
    async storeMessages(lease, connectionKey, firstNumber, messages) {
      if (messages.length === 0) return "stored";
      const lengths = messages.map(({ payload }) => payload.length);
      const range = `${firstNumber} to ${firstNumber + messages.length - 1}`;
      const { held } = await storeFunctions(
        database.caller(`store messages ${range} of channel ${connectionKey}`),
      ).storeMessages({
        name: lease.name,
        epoch: BigInt(lease.epoch),
        connectionKey,
        firstNumber: BigInt(firstNumber),
        topicKeys: messages.map(({ topicKey }) => topicKey),
        lengths,
        codecs: messages.map(({ codec }) => codec ?? 0),
        headers: headersJson(messages),
        payloads: Buffer.concat(messages.map(({ payload }) => payload)),
      });
      return held ? "stored" : "fenced";
    },
    async drain(
      connectionKey,
      after,
      { maxRows = storeConstants.drainRows, maxBytes = storeConstants.drainBytes } = {},
    ) {
      if (maxRows < 1) throw new StoreError("invalid_argument", `maxRows is ${maxRows}; it must be at least 1`);
      const rows = await database.queryArrays<DrainRow>(`read the stored messages of channel ${connectionKey}`, {
        text: sql.drain,
        values: [connectionKey, after.epoch, after.number, maxRows, maxBytes, storeConstants.backlogCountRows],
      });
      const total = Number(rows[0]?.[6] ?? 0);
      return {
        rows: rows.map(messageOf),
        remaining: Math.min(total - rows.length, storeConstants.backlogCountRows),
      };
    },
    async backlogOf(connectionKey, after) {
      const [row] = await database.query<{ rows: bigint }>(`count the stored messages of channel ${connectionKey}`, {
        text: sql.backlog,
        values: [connectionKey, after.epoch, after.number, storeConstants.backlogCountRows],
      });
      return Number(row?.rows ?? 0);
    },
  };
}

function messageOf([epoch, number, topicKey, codec, headers, payload]: DrainRow): StoredMessage {
  return {
    epoch: Number(epoch),
    number: Number(number),
    topicKey,
    codec,
    payload,
    headers: (headers as readonly HeaderPair[] | null) ?? [],
  };
}

function headersJson(messages: readonly MessageToStore[]): string | null {
  if (!messages.some(({ headers }) => headers !== undefined && headers.length > 0)) return null;
  return JSON.stringify(
    messages.map(({ headers }) => (headers === undefined || headers.length === 0 ? null : headers)),
  );
}
