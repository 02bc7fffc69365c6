/**
 * Good and bad values of the catalog's columns. Both sides of the spec read them: the checks in TypeScript and those in
 * Postgres, and both must say the same of each.
 */
import type { columnChecks } from "../../generated/ts/rules/peer/catalog.js";

export type CheckedTable = keyof typeof columnChecks;

export interface RuleCase {
  readonly table: CheckedTable;
  readonly column: string;
  readonly good: readonly unknown[];
  readonly bad: readonly unknown[];
}

/** Two, three and four bytes in UTF-8. */
const [two, three, four] = ["ä", "€", "😀"];

const goodNames = [
  "a",
  "order 1",
  "__#x",
  "ä€😀",
  "'\"\\%_",
  "a\u0080b",
  "\u2028",
  "\ufeff",
  "-",
  "a".repeat(255),
  two.repeat(127),
  three.repeat(85),
  four.repeat(63),
];
const badNames = [
  "",
  ":",
  "a:b",
  "\u0001",
  "a\nb",
  "a\tb",
  "\u001f",
  "\u007f",
  "\0",
  "a\0b",
  "a".repeat(256),
  two.repeat(128),
  three.repeat(86),
  four.repeat(64),
];

/** Names of peers; those that begin as reserved topics do are refused by the tables alone. */
const peerNames = {
  good: goodNames.map((name) => (name.startsWith("__#") ? name.slice(1) : name)),
  bad: badNames,
};

/** Limited in length alone. */
function lengthCases(least: number, greatest: number) {
  return {
    good: ["a".repeat(least), "a".repeat(greatest), two.repeat(Math.floor(greatest / 2)), "\n".repeat(least)],
    bad: [
      "a".repeat(least - 1),
      "a".repeat(greatest + 1),
      two.repeat(Math.floor(greatest / 2) + 1),
      "a\0".repeat(least),
      "a".repeat(100_000),
    ],
  };
}

const keys = { good: [1, 2, 2147483647], bad: [0, -1, 2147483648, 1.5, Number.NaN, Number.POSITIVE_INFINITY] };
const numbers = { good: [0n, 1n, 9007199254740991n], bad: [-1n, 9007199254740992n, 9223372036854775808n] };

export const ruleCases: readonly RuleCase[] = [
  { table: "id_counter", column: "id", good: [1], bad: [0, 2, 1.5, -2147483649] },
  { table: "listeners", column: "topic", good: goodNames, bad: badNames },
  { table: "listeners", column: "addr", ...lengthCases(1, 512) },
  { table: "listeners", column: "listener_name", ...peerNames },
  { table: "listeners", column: "max_message_bytes", good: [1n, 1073741824n], bad: [0n, -1n, 1073741825n] },
  { table: "routes", column: "sender_key", ...lengthCases(3, 511) },
  { table: "channels", column: "channel_id", ...keys },
  { table: "cursors", column: "number", ...numbers },
  { table: "stored_messages", column: "codec", good: [0, 1], bad: [-1, 2, 32768, -32769, 0.5] },
  {
    table: "stored_messages",
    column: "id",
    good: [9223372036854775807n, -9223372036854775808n],
    bad: [9223372036854775808n],
  },
  { table: "peers", column: "epoch", good: [1n, 9007199254740991n], bad: [0n, -1n, 9007199254740992n] },
  {
    table: "dead_letters",
    column: "origin",
    good: ["queue", "subscription"],
    bad: ["", "Queue", "queue ", " queue", "queue\n", "peer", "queue\0"],
  },
  { table: "dead_letters", column: "source", good: ["", "a", "a:b\nc"], bad: ["\0"] },
  {
    table: "mesh_secret",
    column: "secret",
    good: [new Uint8Array(32), Buffer.alloc(32, 255)],
    bad: [new Uint8Array(31), new Uint8Array(33), new Uint8Array(0)],
  },
];

/** Good values for the columns without a default, into which a case's value is put. */
export const goodRows: Readonly<Partial<Record<CheckedTable, Record<string, unknown>>>> = {
  id_counter: { id: 1, last_id: 0 },
  listeners: { topic: "t", addr: "127.0.0.1:1", listener_name: "n" },
  routes: { sender_key: "a:b", addr: "127.0.0.1:1", listener_topic: "t", listener_name: "n" },
  channels: { channel_name: "a:b:c", channel_id: 1 },
  cursors: { channel_id: 1 },
  stored_messages: { channel_id: 1, payload: Buffer.of(1) },
  peers: { name: "n", epoch: 1n },
  dead_letters: {
    origin: "queue",
    source: "",
    topic: "t",
    payload: Buffer.of(1),
    error_code: "handler_failed",
    error_message: "m",
    attempts: 1,
  },
  mesh_secret: { id: 9, secret: Buffer.alloc(32) },
};
