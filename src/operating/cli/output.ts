/**
 * Output of commands: lines for people with {@link print}, rows as a table or as JSON with {@link printRows}, and with
 * {@link Output} text at the reader's pace. Foreign text is made safe for terminals.
 */
import type { Writable } from "node:stream";
import { stripVTControlCharacters, styleText } from "node:util";
import { errorTable, HawserError, withoutPasswords } from "../../foundation/errors/index.js";

/** Writer of consecutive texts. */
export class Output {
  /** Aborted when the reader has closed its end of the pipe, or writing has failed. */
  readonly closed: AbortSignal;
  readonly #closing = new AbortController();

  readonly #stream: Writable;

  constructor(stream: Writable = process.stdout) {
    this.#stream = stream;
    this.closed = this.#closing.signal;
    // The callback of the write reports the error; without a listener the event would end the process.
    stream.on("error", (error) => this.#closing.abort(error));
  }

  /** True if written text waits for the reader. */
  get isBehind(): boolean {
    return this.#stream.writableLength > 0;
  }

  /**
   * Resolves when all of the text is written to the pipe, the terminal or the file.
   *
   * @returns false if the reader has closed the pipe
   * @throws HawserError `output_failed` for another error, such as a full disk
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
            new HawserError("output_failed", `could not write the output: ${error.message}`, {
              cause: error,
            }),
          );
        }
      });
    });
  }
}

/** True if a stream's error means that its reader closed the pipe or ended. */
export function isGone(error: NodeJS.ErrnoException): boolean {
  return ["EPIPE", "ECONNRESET", "ERR_STREAM_DESTROYED"].includes(error.code ?? "");
}

/** Writes text and a line end to the stream, without styles unless it {@link hasColors}. */
export function print(stream: NodeJS.WriteStream, text: string): void {
  stream.write(`${hasColors(stream) ? text : stripVTControlCharacters(text)}\n`);
}

/** True if the stream is a terminal with colors, which variables such as NO_COLOR can switch off. */
export function hasColors(stream: NodeJS.WriteStream): boolean {
  return stream.isTTY === true && stream.hasColors();
}

/** Text with the control characters of a style, for a stream that {@link hasColors} or for {@link print}. */
export function styled(style: Parameters<typeof styleText>[0], text: string): string {
  return styleText(style, text, { validateStream: false });
}

/** Escapes line terminators and terminal control characters as in JSON. */
export function printable(text: string): string {
  return text.replace(/[\p{Cc}\u2028\u2029\u202a-\u202e\u2066-\u2069\u061c\u200e\u200f]/gu, (character) => {
    const short = JSON.stringify(character).slice(1, -1);
    return short.startsWith("\\") ? short : escaped(character);
  });
}

/** Applies {@link printable} to each line of a text. */
function printableLines(text: string): string {
  return text.split("\n").map(printable).join("\n");
}

/**
 * JSON on one line, with all terminal control characters escaped, including those that JSON would not escape.
 *
 * @param replacer as for `JSON.stringify`
 */
export function jsonText(value: object, replacer?: (key: string, value: unknown) => unknown): string {
  return JSON.stringify(value, replacer).replace(
    /[\u007f-\u009f\u2028\u2029\u202a-\u202e\u2066-\u2069\u061c\u200e\u200f]/g,
    escaped,
  );
}

function escaped(character: string): string {
  return `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`;
}

/** Column of a table: its head, and the text of a row's cell. */
export interface Column<Row> {
  readonly head: string;
  readonly cell: (row: Row) => string | number | bigint;
}

/** Fewest characters to which {@link tableLines} cuts a column of texts. */
const leastColumn = 8;
const gap = "  ";

/**
 * Lines of a text table without line ends, numbers aligned right.
 *
 * @param width characters of a line; the widest columns of texts are cut to fit. Numbers are never cut, so that a line may
 * still be longer. Default: without a limit
 */
export function tableLines<Row>(
  rows: readonly Row[],
  columns: readonly Column<Row>[],
  width = Number.POSITIVE_INFINITY,
): { readonly head: string; readonly lines: readonly string[] } {
  const cells = rows.map((row) => columns.map(({ cell }) => cell(row)));
  const texts = cells.map((line) => line.map((cell) => printable(String(cell))));
  const isNumber = columns.map((_, at) => cells.some((line) => typeof line[at] !== "string"));
  const widths = columns.map(({ head }, at) =>
    texts.reduce((widest, line) => Math.max(widest, line[at]!.length), head.length),
  );
  const least = columns.map(({ head }, at) => (isNumber[at] ? widths[at]! : Math.max(head.length, leastColumn)));
  const excess = () => widths.reduce((sum, each) => sum + each + gap.length, -gap.length) - width;
  while (excess() > 0) {
    const [widest] = [...widths.keys()]
      .filter((at) => widths[at]! > least[at]!)
      .sort((a, b) => widths[b]! - widths[a]!);
    if (widest === undefined) break;
    widths[widest]! -= 1;
  }
  const line = (parts: readonly string[]) =>
    parts
      .map((part, at) => (isNumber[at] ? part.padStart(widths[at]!) : cut(part, widths[at]!).padEnd(widths[at]!)))
      .join(gap)
      .trimEnd();
  return { head: line(columns.map(({ head }) => head)), lines: texts.map(line) };
}

/** Text of at most `width` characters, with an ellipsis if it is cut. */
export function cut(text: string, width: number): string {
  // Half of a character outside the Unicode BMP would be shown as another one.
  return text.length <= width ? text : `${text.slice(0, Math.max(0, width - 1)).replace(/[\ud800-\udbff]$/, "")}…`;
}

/** Rows as a text table without a final line end. */
function table<Row>(rows: readonly Row[], columns: readonly Column<Row>[]): string {
  const { head, lines } = tableLines(rows, columns);
  return [styled("bold", head), ...lines].join("\n");
}

/** Prints outcomes: for programs a line of JSON each, otherwise the summary. */
export async function printOutcomes(outcomes: readonly object[], json: boolean, summary: () => string): Promise<void> {
  if (json) await new Output().write(outcomes.map((outcome) => `${jsonText(outcome)}\n`).join(""));
  else print(process.stdout, summary());
}

/** Prints rows. For an empty list, people get a line on standard error, and programs nothing. */
export async function printRows<Row extends object>(
  rows: readonly Row[],
  options: { readonly json: boolean; readonly none: string; readonly columns: readonly Column<Row>[] },
): Promise<void> {
  if (rows.length === 0 && !options.json) print(process.stderr, options.none);
  else await printOutcomes(rows, options.json, () => table(rows, options.columns));
}

/** Number of table rows without a limit. */
const shownAtFirst = 100;

/** Number of rows that {@link printFirstRows} needs: one more than it shows, to know whether there are more. */
export function rowLimit(limit: number | undefined, json: boolean): number | undefined {
  return limit ?? (json ? undefined : shownAtFirst + 1);
}

/** Prints the rows; without a limit, a table shows only the first ones. */
export async function printFirstRows<Row extends object>(
  rows: readonly Row[],
  limit: number | undefined,
  options: Parameters<typeof printRows<Row>>[1],
): Promise<void> {
  const isCut = !options.json && limit === undefined && rows.length > shownAtFirst;
  await printRows(isCut ? rows.slice(0, shownAtFirst) : rows, options);
  if (isCut) print(process.stderr, `Only the first ${shownAtFirst} are shown; --limit shows more.`);
}

/** Progress of a long command: a line on standard error that is updated in place. */
export interface Progress {
  update(text: string): void;
  /** Removes the line. */
  stop(): void;
}

const silent: Progress = { update() {}, stop() {} };

/** Shortest time between two updates. */
const updateMs = 100;

/** Starts a progress line, unless standard error is not a terminal with a width or `wanted` is false. */
export function startProgress(text: string, wanted: boolean): Progress {
  const { stderr } = process;
  if (!wanted || !stderr.isTTY || !stderr.columns || process.env["TERM"] === "dumb") return silent;
  const draw = (line: string): void => void stderr.write(`${clearedLine}${cut(line, stderr.columns - 1)}`);
  draw(text);
  let at = 0;
  return {
    update(next) {
      if (performance.now() - at < updateMs) return;
      at = performance.now();
      draw(next);
    },
    stop: () => void stderr.write(clearedLine),
  };
}

/** Moves the cursor to the start of the line, and clears the line. */
const clearedLine = "\r\u001b[K";

/** Pattern of a message that contains its own remedy: after a semicolon, in a further sentence, or as a statement. */
const ownRemedy = /[;.] |: (?:run `|GRANT )/;
/** Remedies of the error table that refer to the message, or are meant for programs. */
const pointsElsewhere = /^(?:The message|Read the cause|Do nothing)|\brun\(\)|stop\(\)/;

/**
 * Error text for people: the message, its causes, its code; for a defect the stack. Without terminal control characters
 * and passwords of URLs.
 */
export function describeError(error: unknown): string {
  if (!(error instanceof HawserError)) {
    const details = error instanceof Error ? (error.stack ?? error.message) : String(error);
    return `${styled("red", "hawser:")} ${shown(details)}\nThis is a defect of Hawser. Please report it with the lines above.`;
  }
  const lines = [`${styled("red", "hawser:")} ${shown(error.message)} ${styled("dim", `[${error.code}]`)}`];
  for (let cause = error.cause; cause instanceof Error; cause = cause.cause) {
    const text = shown(cause.message.trim());
    // Messages often contain their cause, which is not repeated.
    if (text !== "" && !lines.some((line) => line.includes(text))) lines.push(`  because: ${text}`);
  }
  const { remedy } = error;
  const isOwn = remedy !== errorTable[error.code].remedy;
  if (isOwn || !(ownRemedy.test(error.message) || pointsElsewhere.test(remedy)))
    lines.push(`  remedy: ${shown(remedy)}`);
  return lines.join("\n");
}

function shown(text: string): string {
  return printableLines(withoutPasswords(text));
}
