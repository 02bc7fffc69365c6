/**
 * Writes cursors, and what goes with them: deleted rows, counted attempts, dead letters.
 */
import { type DeadLetterRow, type StoreFunctions, storeFunctions } from "../../generated/ts/rows/peer.js";
import { limits } from "../../generated/ts/rules/peer/catalog.js";
import { storeConstants } from "../../generated/ts/settings/peer.js";
import { shortened, withoutPasswords } from "../errors/index.js";
import { sqlstateOf } from "../postgres/index.js";
import type { Position } from "./channels.js";
import type { Database } from "./database.js";
import type { Columns } from "./kept-session.js";
import type { HeaderPair } from "./stored-messages.js";
import type { WriterName } from "./transaction.js";

/** A message that could not be handled. */
export interface DeadLetter extends Position {
  readonly topic: string;
  /** Uncompressed. */
  readonly payload: Uint8Array;
  readonly headers: readonly HeaderPair[];
  readonly errorCode: string;
  readonly errorMessage: string;
  readonly attempts: number;
  /** Of the last error. */
  readonly stack?: string | undefined;
  readonly failures?: readonly FailedAttempt[] | undefined;
}

/** An attempt of a dead letter. */
interface FailedAttempt {
  /** From 1. */
  readonly attempt: number;
  /** In ms since 1970. */
  readonly at: number;
  readonly code: string;
  readonly message: string;
}

/** A channel's new cursor, and what else is done of the channel. The cursor may be one that is there already. */
export interface CursorCommit extends Position {
  readonly connectionKey: number;
  readonly deadLetters?: readonly DeadLetter[];
  /** What else is done, and needs marks if the cursor is before it. */
  readonly done?: readonly Position[];
  /** Parked messages that are done, after `deadLetters`. */
  readonly unparked?: readonly Position[];
  /** There may be marks, which go where the cursor passes them. */
  readonly hasMarks?: boolean;
}

/** What became of a batch of commits. */
export interface CommittedCursors {
  /** The channels whose cursor is now at the new position or beyond it: moved by this call, or by an earlier one. */
  readonly committed: readonly number[];
  /** The channels that belong to another listener; nothing was written for them. */
  readonly notOwned: readonly number[];
}

/** A dead letter as `hawser.commit_cursors` reads it. */
type DeadLetterJson = Pick<
  DeadLetterRow,
  "connection_key" | "topic" | "headers" | "error_code" | "error_message" | "attempts" | "stack" | "failures"
> & { readonly epoch: number; readonly number: number; readonly payload_bytes: number };

/** Writes the cursors of a database. */
export function cursorCommits(database: Database) {
  const functions = storeFunctions(database.frequentCaller("commit cursors", committedRow));
  return {
    /**
     * Moves cursors forward, no channel twice, and deletes the stored rows and the marks at or below them, all in one
     * transaction. A dead letter is written with a mark, and only if its message is not done, so that a call whose fate is
     * unknown is simply repeated.
     *
     * @returns `fenced` if another process has the name now; then nothing was written
     * @throws HawserError `store_failed`
     */
    commitCursors: (lease: WriterName, commits: readonly CursorCommit[]) => commitCursors(functions, lease, commits),
    /** Deletes a channel's stored rows at or below its committed cursor. */
    async deleteRowsUpTo(
      lease: WriterName,
      connectionKey: number,
      { epoch, number }: Position,
    ): Promise<"deleted" | "fenced"> {
      // A commit that does not move the cursor: the same rules decide what may be deleted.
      const result = await commitCursors(functions, lease, [{ connectionKey, epoch, number, hasMarks: true }]);
      return result === "fenced" ? "fenced" : "deleted";
    },
    /**
     * Counts one more start of the handler of the message behind the cursor, before it is started, so that a message that
     * kills its process is known by its number of attempts. Moving the cursor sets the count back to 0.
     *
     * @param change -1 takes a counted start back: the process ends in good order, and the message was not finished
     * @returns how many starts that makes
     */
    async countAttempt(
      { name, epoch }: WriterName,
      connectionKey: number,
      change: 1 | -1 = 1,
    ): Promise<number | "fenced"> {
      const caller = database.caller(`count an attempt of channel ${connectionKey}`);
      const args = { name, epoch: BigInt(epoch), connectionKey, change };
      const { held, attempts } = await storeFunctions(caller).countAttempt(args);
      return held ? (attempts ?? 0) : "fenced";
    },
  };
}

/** Writes cursors. */
export type CursorCommits = ReturnType<typeof cursorCommits>;

const none: readonly never[] = [];

/**
 * No cursor of any channel moves before the database takes it: texts are kept as far as it has characters for them.
 *
 * @param plainer changes what it has no characters for, one after another
 */
async function commitCursors(
  functions: StoreFunctions,
  lease: WriterName,
  commits: readonly CursorCommit[],
  [change, ...plainer]: readonly ((commit: CursorCommit) => CursorCommit)[] = [withPlainErrors, withPlainHeaders],
): Promise<CommittedCursors | "fenced"> {
  const connectionKeys: number[] = [];
  const cursorEpochs: bigint[] = [];
  const cursors: bigint[] = [];
  const letters: { connectionKey: number; letter: DeadLetter }[] = [];
  const doneMessages: number[][] = [];
  let hasMarks = false;
  for (const { connectionKey, deadLetters = none, done = none, unparked = none, ...commit } of commits) {
    connectionKeys.push(connectionKey);
    cursorEpochs.push(BigInt(commit.epoch));
    cursors.push(BigInt(commit.number));
    for (const letter of deadLetters) letters.push({ connectionKey, letter });
    for (const { epoch, number } of done) doneMessages.push([connectionKey, epoch, number]);
    for (const { epoch, number } of unparked) doneMessages.push([connectionKey, epoch, number]);
    hasMarks ||= commit.hasMarks === true || deadLetters.length > 0;
  }
  let rows: Awaited<ReturnType<StoreFunctions["commitCursors"]>>;
  try {
    rows = await functions.commitCursors({
      name: lease.name,
      epoch: BigInt(lease.epoch),
      connectionKeys,
      cursorEpochs,
      cursors,
      deadLetters: letters.length === 0 ? null : JSON.stringify(letters.map(deadLetterJson)),
      deadPayloads: letters.length === 0 ? null : Buffer.concat(letters.map(({ letter }) => letter.payload)),
      done: doneMessages.length === 0 ? null : JSON.stringify(doneMessages),
      hasMarks,
    });
  } catch (error) {
    if (change === undefined || sqlstateOf(error) !== untranslatable) throw error;
    return await commitCursors(functions, lease, commits.map(change), plainer);
  }
  if (rows[0]?.held === false) return "fenced";
  const committed: number[] = [];
  const notOwned: number[] = [];
  for (const { connectionKey, moved } of rows) (moved === null ? notOwned : committed).push(connectionKey as number);
  return { committed, notOwned };
}

/** A row of `hawser.commit_cursors` as the driver would read it. */
function committedRow([held, connectionKey, moved]: Columns): object {
  return { held: held === "t", connection_key: Number(connectionKey), moved: moved === null ? null : moved === "t" };
}

function deadLetterJson({ connectionKey, letter }: { connectionKey: number; letter: DeadLetter }): DeadLetterJson {
  return {
    connection_key: connectionKey,
    epoch: letter.epoch,
    number: letter.number,
    topic: storable(letter.topic),
    payload_bytes: letter.payload.length,
    headers: letter.headers.map(([name, value]) => [storable(name), storable(value)]),
    error_code: storable(letter.errorCode),
    error_message: textOf(letter.errorMessage, limits.DeadLetter.errorMessage.maxBytes),
    attempts: letter.attempts,
    stack: letter.stack === undefined ? null : textOf(letter.stack, limits.DeadLetter.stack.maxBytes),
    failures:
      letter.failures === undefined || letter.failures.length === 0
        ? null
        : letter.failures.map(({ attempt, at, code, message }) => ({
            attempt,
            at: new Date(at).toISOString(),
            code: storable(code),
            message: textOf(message, storeConstants.deadLetterFailureBytes),
          })),
  };
}

/** What a handler has thrown, without the passwords of URLs in it, in so many bytes. */
function textOf(text: string, maxBytes: number): string {
  // Only so much more than is kept: replacing takes longer for each character of a long text.
  return shortened(withoutPasswords(storable(text.slice(0, 2 * maxBytes))), maxBytes);
}

/** SQLSTATE of text that the encoding of the database has no characters for. */
const untranslatable = "22P05";

/** In ASCII what a handler has thrown. Source and topic the database has held before. */
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

/** As JSON escapes what is not ASCII. */
function escaped(text: string): string {
  return text.replace(/[^\0-\x7f]/g, (unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, "0")}`);
}

/** Postgres has no text with U+0000 or lone surrogates, and an error's message may hold both. */
function storable(text: string): string {
  return Buffer.from(text).toString().replaceAll("\0", "\uFFFD");
}
