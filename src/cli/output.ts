/**
 * What commands write: lines for people with {@link print}, rows as a table or as JSON with {@link printRows}, and with
 * {@link Output} text at the pace of the reader and until the reader leaves. What others wrote is made fit for a terminal.
 */
import type { Writable } from "node:stream";
import { stripVTControlCharacters } from "node:util";
import pc from "picocolors";
import { HawserError, withoutPasswords } from "../errors/index.js";

/** Writes one piece after another. */
export class Output {
  /** Aborted when the reader has closed its end of the pipe, or nothing can be written any more. */
  readonly closed: AbortSignal;
  readonly #closing = new AbortController();

  readonly #stream: Writable;

  constructor(stream: Writable = process.stdout) {
    this.#stream = stream;
    this.closed = this.#closing.signal;
    // The callback of the write tells what went wrong; without a listener the event would end the process.
    stream.on("error", (error) => this.#closing.abort(error));
  }

  /** Whether something waits for the reader. */
  get isBehind(): boolean {
    return this.#stream.writableLength > 0;
  }

  /**
   * Resolves when all of the text is written: to the pipe, the terminal or the file.
   *
   * @returns false if the reader has left
   * @throws HawserError `output_failed` if it could not be written for another reason, such as a full disk
   */
  write(text: string): Promise<boolean> {
    return new Promise((resolve, reject) => {
      this.#stream.write(text, (error) => {
        if (error === null || error === undefined) resolve(true);
        else if (isGone(error)) {
          this.#closing.abort(error);
          resolve(false);
        } else {
          reject(
            new HawserError("output_failed", `could not write what was to be printed: ${error.message}`, {
              cause: error,
            }),
          );
        }
      });
    });
  }
}

/** Whether an error of a stream says that its reader closed the pipe, or that the reader's process ended. */
export function isGone(error: NodeJS.ErrnoException): boolean {
  return ["EPIPE", "ECONNRESET", "ERR_STREAM_DESTROYED"].includes(error.code ?? "");
}

/** Writes text and a line's end to the stream, without colours where nobody would see them. */
export function print(stream: NodeJS.WriteStream, text: string): void {
  const plain = !stream.isTTY || Boolean(process.env["NO_COLOR"]);
  // citty pads its columns to the end of the line.
  const lines = (plain ? stripVTControlCharacters(text) : text).split("\n").map((line) => line.trimEnd());
  stream.write(`${lines.join("\n").trimEnd()}\n`);
}

const utf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/** The text of the bytes; undefined if they are not valid UTF-8. */
export function textOf(bytes: Uint8Array): string | undefined {
  try {
    return utf8.decode(bytes);
  } catch {
    return undefined;
  }
}

/** Base64 of the bytes. */
export function base64Of(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString("base64");
}

/** On one line, and without characters that a terminal obeys: they are shown as JSON would. */
export function printable(text: string): string {
  return text.replace(/[\p{Cc}\u2028\u2029\u202a-\u202e\u2066-\u2069\u061c\u200e\u200f]/gu, (character) => {
    const short = JSON.stringify(character).slice(1, -1);
    return short.startsWith("\\") ? short : escaped(character);
  });
}

/** The same for each line of a text. */
function printableLines(text: string): string {
  return text.split("\n").map(printable).join("\n");
}

/** JSON on one line, in which whatever a terminal obeys is escaped: also what JSON itself would leave as it is. */
export function jsonText(value: object): string {
  return JSON.stringify(value).replace(
    /[\u007f-\u009f\u2028\u2029\u202a-\u202e\u2066-\u2069\u061c\u200e\u200f]/g,
    escaped,
  );
}

function escaped(character: string): string {
  return `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`;
}

/** A column: its head, and the text of a row's cell. */
export interface Column<Row> {
  readonly head: string;
  readonly cell: (row: Row) => string | number;
}

/** The rows as text, numbers to the right. Ends without a line's end. */
function table<Row>(rows: readonly Row[], columns: readonly Column<Row>[]): string {
  const cells = rows.map((row) => columns.map(({ cell }) => cell(row)));
  const texts = cells.map((line) => line.map((cell) => printable(String(cell))));
  const widths = columns.map(({ head }, at) =>
    texts.reduce((width, line) => Math.max(width, line[at]!.length), head.length),
  );
  const isNumber = columns.map((_, at) => cells.some((line) => typeof line[at] === "number"));
  const line = (parts: readonly string[]) =>
    parts
      .map((part, at) => (isNumber[at] ? part.padStart(widths[at]!) : part.padEnd(widths[at]!)))
      .join("  ")
      .trimEnd();
  return [pc.bold(line(columns.map(({ head }) => head))), ...texts.map(line)].join("\n");
}

/** 1 message, 2 messages. */
export function plural(count: number, noun: string): string {
  return `${count} ${noun}${count === 1 ? "" : "s"}`;
}

/** Prints what became of something: for programs a line of JSON each, else the summary. */
export async function printOutcomes(outcomes: readonly object[], json: boolean, summary: () => string): Promise<void> {
  if (json) await new Output().write(outcomes.map((outcome) => `${jsonText(outcome)}\n`).join(""));
  else print(process.stdout, summary());
}

/** Prints the rows. An empty list is a line on standard error for people, and nothing for programs. */
export async function printRows<Row extends object>(
  rows: readonly Row[],
  options: { readonly json: boolean; readonly none: string; readonly columns: readonly Column<Row>[] },
): Promise<void> {
  if (rows.length === 0 && !options.json) print(process.stderr, options.none);
  else await printOutcomes(rows, options.json, () => table(rows, options.columns));
}

/** Rows of a table when nobody says how many. */
const shownAtFirst = 100;

/** How many rows {@link printFirstRows} wants to know of: one more than it shows tells that there are more. */
export function rowLimit(limit: number | undefined, json: boolean): number | undefined {
  return limit ?? (json ? undefined : shownAtFirst + 1);
}

/** Prints the rows; without a limit a table has only the first ones. */
export async function printFirstRows<Row extends object>(
  rows: readonly Row[],
  limit: number | undefined,
  options: Parameters<typeof printRows<Row>>[1],
): Promise<void> {
  const isCut = !options.json && limit === undefined && rows.length > shownAtFirst;
  await printRows(isCut ? rows.slice(0, shownAtFirst) : rows, options);
  if (isCut) print(process.stderr, `There are more than these ${shownAtFirst}; --limit shows more, and filters fewer.`);
}

/** Tells how far a long command is: a line on standard error that changes in place. */
export interface Progress {
  update(text: string): void;
  /** Takes the line away. */
  stop(): void;
}

const silent: Progress = { update() {}, stop() {} };

/** How often the line changes at most. */
const updateMs = 100;

/** Begins a line, unless no one would see it: standard error is no terminal, or `wanted` is false. */
export async function startProgress(text: string, wanted: boolean): Promise<Progress> {
  // In a terminal without a width, as `script` and some containers make it, ora would count lines for ever.
  if (!wanted || !process.stderr.isTTY || !process.stderr.columns) return silent;
  const { default: ora } = await import("ora");
  // Standard input is the command's, and Ctrl-C comes as a signal.
  const spinner = ora({ text, stream: process.stderr, discardStdin: false }).start();
  let at = 0;
  return {
    update(next) {
      if (performance.now() - at < updateMs) return;
      at = performance.now();
      spinner.text = next;
    },
    stop: () => void spinner.stop(),
  };
}

/** How a message goes on when it has a remedy of its own: after a semicolon, in a further sentence, as a statement. */
const ownRemedy = /[;.] |: (?:run `|GRANT )/;
/** Remedies of the error table that send the reader to the message, or tell programs what to do. */
const pointsElsewhere = /^(?:The message|Read the cause|Do nothing)|\brun\(\)|stop\(\)/;

/**
 * An error as a person wants to read it: what happened, its causes, its code. A defect of ours shows its stack. Nothing in
 * it that a terminal obeys, and no password of a URL.
 */
export function describeError(error: unknown): string {
  if (!(error instanceof HawserError)) {
    const details = error instanceof Error ? (error.stack ?? error.message) : String(error);
    return `${pc.red("hawser:")} ${shown(details)}\nThis is a defect of Hawser. Please report it with the lines above.`;
  }
  const lines = [`${pc.red("hawser:")} ${shown(error.message)} ${pc.dim(`[${error.code}]`)}`];
  for (let cause = error.cause; cause instanceof Error; cause = cause.cause) {
    const text = shown(cause.message.trim());
    // Messages often quote their cause; saying it twice helps nobody.
    if (text !== "" && !lines.some((line) => line.includes(text))) lines.push(`  because: ${text}`);
  }
  const remedy = error.remedy;
  if (!ownRemedy.test(error.message) && !pointsElsewhere.test(remedy)) lines.push(`  what to do: ${shown(remedy)}`);
  return lines.join("\n");
}

function shown(text: string): string {
  return printableLines(withoutPasswords(text));
}
