/** Full-screen output on a terminal, and its keys. */

/** Introducer of the control sequences. */
const csi = "\u001b[";
/** Switches to the other screen, hides the cursor, and cuts lines instead of wrapping them. */
const enter = `${csi}?1049h${csi}?25l${csi}?7l`;
const leave = `${csi}?7h${csi}?25h${csi}?1049l`;

/** Terminal as it is used: the streams of this process. */
type Terminal = Pick<NodeJS.Process, "stdin" | "stdout">;

/**
 * Screen of its own, which leaves the terminal as it was: when it is closed, when the process exits, and before an
 * uncaught error is printed. Keys are read if standard input is a terminal; Ctrl-C is then a key, too.
 */
export class Screen {
  readonly #stdin: NodeJS.ReadStream;
  readonly #stdout: NodeJS.WriteStream;
  readonly #onKeys: (chunk: Buffer) => void;
  readonly #onResize: () => void;
  readonly #close = (): void => this.close();
  #isOpen = true;

  constructor(
    handlers: {
      /** Called for each key, with the character that it sends. */
      readonly onKey: (key: string) => void;
      readonly onResize: () => void;
    },
    { stdin, stdout }: Terminal = process,
  ) {
    this.#stdin = stdin;
    this.#stdout = stdout;
    this.#onKeys = (chunk) => {
      for (const key of chunk.toString()) handlers.onKey(key);
    };
    this.#onResize = handlers.onResize;
    process.on("exit", this.#close).on("uncaughtExceptionMonitor", this.#close);
    stdout.on("resize", this.#onResize);
    if (this.hasKeys) {
      stdin.setRawMode(true);
      stdin.on("data", this.#onKeys);
    }
    stdout.write(enter);
  }

  get hasKeys(): boolean {
    return this.#stdin.isTTY === true;
  }

  /** Size of the window in characters; that of a terminal which does not tell is 80 by 24. */
  get size(): { readonly columns: number; readonly rows: number } {
    return { columns: this.#stdout.columns || 80, rows: this.#stdout.rows || 24 };
  }

  /** Replaces what the window shows. The lines must fit into it. */
  draw(lines: readonly string[]): void {
    if (!this.#isOpen) return;
    // What is overwritten in place does not flicker.
    this.#stdout.write(`${csi}H${lines.map((line) => `${line}${csi}K`).join("\r\n")}${csi}J`);
  }

  close(): void {
    if (!this.#isOpen) return;
    this.#isOpen = false;
    process.off("exit", this.#close).off("uncaughtExceptionMonitor", this.#close);
    this.#stdout.off("resize", this.#onResize);
    if (this.hasKeys) {
      this.#stdin.off("data", this.#onKeys);
      this.#stdin.setRawMode(false);
      this.#stdin.pause();
    }
    this.#stdout.write(leave);
  }
}
