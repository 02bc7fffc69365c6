/** Commits cursors and the writes that belong to them: deleted rows, attempt counts, dead letters. */

import { type DeadLetterRow, type StoreFunctions, storeFunctions } from "../../../generated/ts/rows/peer.js";
import { limits } from "../../../generated/ts/rules/peer/catalog.js";
import { shortened, withoutPasswords } from "../../foundation/errors/index.js";
import { type Columns, sqlstateOf, untranslatable } from "../../foundation/postgres/index.js";
import { deadLetterFailureBytes } from "../channel/index.js";
import type { Position } from "./channels.js";
import type { Database } from "./database.js";
import type { HeaderPair } from "./row-faults.js";
import type { WriterName } from "./transaction.js";

/** Message that failed permanently. */
export interface DeadLetter extends Position {
  readonly topic: string;
  /** Uncompressed payload. */
  readonly payload: Uint8Array;
  readonly headers: readonly HeaderPair[];
  readonly errorCode: string;
  readonly errorMessage: string;
  readonly attempts: number;
  /** Stack of the last error. */
  readonly stack?: string | undefined;
  readonly failures?: readonly FailedAttempt[] | undefined;
}

/** Failed attempt of a dead letter. */
interface FailedAttempt {
  /** Number of the attempt, from 1. */
  readonly attempt: number;
  /** Time in ms since 1970. */
  readonly at: number;
  readonly code: string;
  readonly message: string;
}

/** New cursor of a channel and the writes that belong to it. The cursor may be unchanged. */
export interface CursorCommit extends Position {
  readonly channelId: number;
  readonly deadLetters?: readonly DeadLetter[];
  /** Other completed messages, which need marks if the cursor is before them. */
  readonly done?: readonly Position[];
  /** Completed parked messages, which are deleted. Messages in `done` and `deadLetters` only have marks added. */
  readonly unparked?: readonly Position[];
  /** True if the store may have marks, which are deleted when the cursor passes them. */
  readonly hasMarks?: boolean;
}

/** Result of a batch of commits. */
export interface CommittedCursors {
  /** Channels whose cursor is now at or beyond the new position, moved by this call or an earlier one. */
  readonly committed: readonly number[];
  /** Channels that belong to another listener. Nothing was written for them. */
  readonly notOwned: readonly number[];
}

/** Dead letter in the JSON format of `hawser.commit_cursors`. */
type DeadLetterJson = Pick<
  DeadLetterRow,
  "channel_id" | "topic" | "headers" | "error_code" | "error_message" | "attempts" | "stack" | "failures"
> & { readonly epoch: number; readonly number: number; readonly payload_bytes: number };

/** Cursor writes of a database. */
export function cursorCommits(database: Database) {
  const functions = storeFunctions(database.frequentCaller("commit cursors", committedRow));
  return {
    /**
     * Moves cursors forward, each channel at most once, and deletes the stored rows and marks at or below them, in one
     * transaction. A dead letter is written with a mark, and only if its message is not completed, so that a call with
     * an unknown outcome can be repeated.
     *
     * @returns `fenced` if another process owns the name; nothing was written then
     * @throws HawserError `store_failed`
     */
    commitCursors: (lease: WriterName, commits: readonly CursorCommit[]) => commitCursors(functions, lease, commits),
    /** Deletes a channel's stored rows at or below its committed cursor. */
    async deleteRowsUpTo(
      lease: WriterName,
      channelId: number,
      { epoch, number }: Position,
    ): Promise<"deleted" | "fenced"> {
      // A commit that does not move the cursor: it deletes under the same conditions.
      const result = await commitCursors(functions, lease, [{ channelId, epoch, number, hasMarks: true }]);
      return result === "fenced" ? "fenced" : "deleted";
    },
    /**
     * Counts a handler start of the message after the cursor. The caller counts before it starts the handler, so that
     * a message that kills its process is recognised by its count. Moving the cursor resets the count to 0.
     *
     * @param change -1 withdraws a counted start: the process ends gracefully before the message was finished
     * @returns number of starts
     */
    async countAttempt({ name, epoch }: WriterName, channelId: number, change: 1 | -1 = 1): Promise<number | "fenced"> {
      const caller = database.caller(`count an attempt of channel ${channelId}`);
      const args = { name, epoch: BigInt(epoch), channelId, change };
      const { held, attempts } = await storeFunctions(caller).countAttempt(args);
      return held ? (attempts ?? 0) : "fenced";
    },
  };
}

/** Cursor writes of a database. */
export type CursorCommits = ReturnType<typeof cursorCommits>;

const none: readonly never[] = [];

/**
 * Commits cursors. A text that the database encoding cannot represent must not block the cursors of all channels, so
 * the commit is retried with escaped texts.
 *
 * @param escapes escaping functions, applied one after another until the commit succeeds
 */
async function commitCursors(
  functions: StoreFunctions,
  lease: WriterName,
  commits: readonly CursorCommit[],
  [escapeTexts, ...laterEscapes]: readonly ((commit: CursorCommit) => CursorCommit)[] = [
    withPlainErrors,
    withPlainHeaders,
  ],
): Promise<CommittedCursors | "fenced"> {
  const channelIds: number[] = [];
  const cursorEpochs: bigint[] = [];
  const cursors: bigint[] = [];
  const letters: { channelId: number; letter: DeadLetter }[] = [];
  const doneMessages: number[][] = [];
  const unparkedMessages: number[][] = [];
  let hasMarks = false;
  for (const { channelId, deadLetters = none, done = none, unparked = none, ...commit } of commits) {
    channelIds.push(channelId);
    cursorEpochs.push(BigInt(commit.epoch));
    cursors.push(BigInt(commit.number));
    for (const letter of deadLetters) letters.push({ channelId, letter });
    for (const { epoch, number } of done) doneMessages.push([channelId, epoch, number]);
    for (const { epoch, number } of unparked) unparkedMessages.push([channelId, epoch, number]);
    hasMarks ||= commit.hasMarks === true || deadLetters.length > 0;
  }
  let rows: Awaited<ReturnType<StoreFunctions["commitCursors"]>>;
  try {
    rows = await functions.commitCursors({
      name: lease.name,
      epoch: BigInt(lease.epoch),
      channelIds,
      cursorEpochs,
      cursors,
      deadLetters: letters.length === 0 ? null : JSON.stringify(letters.map(deadLetterJson)),
      deadPayloads: letters.length === 0 ? null : Buffer.concat(letters.map(({ letter }) => letter.payload)),
      done: doneMessages.length === 0 ? null : JSON.stringify(doneMessages),
      hasMarks,
      unparked: unparkedMessages.length === 0 ? null : JSON.stringify(unparkedMessages),
    });
  } catch (error) {
    if (escapeTexts === undefined || sqlstateOf(error) !== untranslatable) throw error;
    return await commitCursors(functions, lease, commits.map(escapeTexts), laterEscapes);
  }
  if (rows[0]?.held === false) return "fenced";
  const committed: number[] = [];
  const notOwned: number[] = [];
  for (const { channelId, moved } of rows) (moved === null ? notOwned : committed).push(channelId as number);
  return { committed, notOwned };
}

/** Converts a row of `hawser.commit_cursors`, as the driver would. */
function committedRow([held, channelId, moved]: Columns): object {
  return { held: held === "t", channel_id: Number(channelId), moved: moved === null ? null : moved === "t" };
}

function deadLetterJson({ channelId, letter }: { channelId: number; letter: DeadLetter }): DeadLetterJson {
  return {
    channel_id: channelId,
    epoch: letter.epoch,
    number: letter.number,
    topic: storable(letter.topic),
    payload_bytes: letter.payload.length,
    headers: letter.headers.map(([name, value]) => [storable(name), storable(value)]),
    error_code: storable(letter.errorCode),
    error_message: textOf(letter.errorMessage, limits.DeadLetter.errorMessage.maxBytes),
    attempts: letter.attempts,
    stack: letter.stack === undefined ? null : textOf(letter.stack, limits.DeadLetter.stack.maxBytes),
    failures: letter.failures === undefined || letter.failures.length === 0 ? null : letter.failures.map(failureJson),
  };
}

/** A failed attempt as dead letters have it. */
export function failureJson({ attempt, at, code, message }: FailedAttempt) {
  return {
    attempt,
    at: new Date(at).toISOString(),
    code: storable(code),
    message: textOf(message, deadLetterFailureBytes),
  };
}

/** Text of a handler's error within `maxBytes`, without the passwords of its URLs. */
export function textOf(text: string, maxBytes: number): string {
  // Limits the input first, because the replacement is superlinear in the length of the text.
  return shortened(withoutPasswords(storable(text.slice(0, 2 * maxBytes))), maxBytes);
}

/** Escapes the texts of handler errors. Source and topic come from the database, so it can represent them. */
function withPlainErrors(commit: CursorCommit): CursorCommit {
  return withLetters(commit, ({ errorCode, errorMessage, stack, failures }) => ({
    errorCode: escaped(errorCode),
    errorMessage: escaped(errorMessage),
    stack: stack && escaped(stack),
    failures: failures?.map((failure) => ({
      ...failure,
      code: escaped(failure.code),
      message: escaped(failure.message),
    })),
  }));
}

function withPlainHeaders(commit: CursorCommit): CursorCommit {
  return withLetters(commit, ({ headers }) => ({
    headers: headers.map(([name, value]) => [escaped(name), escaped(value)] as const),
  }));
}

function withLetters(commit: CursorCommit, change: (letter: DeadLetter) => Partial<DeadLetter>): CursorCommit {
  if (commit.deadLetters === undefined) return commit;
  return { ...commit, deadLetters: commit.deadLetters.map((letter) => ({ ...letter, ...change(letter) })) };
}

/** Escapes non-ASCII characters as JSON does. */
export function escaped(text: string): string {
  return text.replace(/[^\0-\x7f]/g, (unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, "0")}`);
}

/** Replaces U+0000 and lone surrogates, which a handler's error may contain and Postgres rejects. */
function storable(text: string): string {
  return Buffer.from(text).toString().replaceAll("\0", "\uFFFD");
}
