/**
 * The wire in Python: the process of python/wire.py, driven by lines of JSON.
 */
import { type ChildProcessWithoutNullStreams, spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { Inbox } from "./inbox.js";
import type { Dialled, FrameJson, HelloJson, Wire, WireConnection } from "./wire.js";

/** Directory of the Python programs. */
const pythonDirectory = fileURLToPath(new URL("../python", import.meta.url));

/** Whether this machine has a Python that can run them. */
export function hasPython(): boolean {
  return spawnSync("python3", ["-c", "import sys; sys.exit(sys.version_info < (3, 9))"]).status === 0;
}

/** Arguments for python3: nothing is written beside the sources. */
export function pythonArguments(program: string, ...args: string[]): string[] {
  return ["-B", `${pythonDirectory}/${program}`, ...args];
}

interface PythonEvent {
  readonly id: string;
  readonly listening?: string;
  readonly hello?: HelloJson;
  readonly welcome?: FrameJson;
  readonly refused?: string;
  readonly frame?: FrameJson;
  readonly closed?: true;
}

/** The wire in a process of its own. */
export class PythonWire implements Wire {
  readonly #process: ChildProcessWithoutNullStreams;
  readonly #inboxes = new Map<string, Inbox<FrameJson>>();
  readonly #dials = new Map<string, (dialled: Dialled) => void>();
  readonly #hellos = new Map<string, HelloJson>();
  #listening: ((address: string) => void) | undefined;
  #listener: Parameters<Wire["listen"]>[0] | undefined;
  #said = "";

  constructor() {
    this.#process = spawn("python3", pythonArguments("wire.py"), { cwd: pythonDirectory });
    this.#process.stderr.on("data", (chunk: Buffer) => {
      this.#said += chunk.toString();
    });
    createInterface({ input: this.#process.stdout }).on("line", (line) => void this.#hear(JSON.parse(line)));
  }

  async dial({ address, secret, hello }: Parameters<Wire["dial"]>[0]): Promise<Dialled> {
    const id = `dialled-${this.#dials.size + 1}`;
    const dialled = new Promise<Dialled>((resolve) => this.#dials.set(id, resolve));
    this.#inboxes.set(id, new Inbox());
    this.#command({ do: "dial", id, address, secretHex: Buffer.from(secret).toString("hex"), hello });
    return await dialled;
  }

  async listen(options: Parameters<Wire["listen"]>[0]): Promise<string> {
    this.#listener = options;
    const address = new Promise<string>((resolve) => {
      this.#listening = resolve;
    });
    const secretsHex = options.secrets.map((secret) => Buffer.from(secret).toString("hex"));
    this.#command({ do: "listen", listenerName: options.listenerName, secretsHex });
    return await address;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#process.exitCode === null) {
      this.#process.stdin.end();
      await once(this.#process, "close");
    }
    if (this.#said !== "") throw new Error(`wire.py complained:\n${this.#said}`);
  }

  #command(command: object): void {
    // At the end a connection may still be asking.
    if (this.#process.stdin.writable) this.#process.stdin.write(`${JSON.stringify(command)}\n`);
  }

  async #hear(event: PythonEvent): Promise<void> {
    const { id } = event;
    if (event.listening !== undefined) this.#listening?.(event.listening);
    else if (event.hello !== undefined) await this.#decide(id, event.hello);
    else if (event.welcome !== undefined) {
      this.#dials.get(id)?.({ connection: this.#connection(id), welcome: event.welcome });
    } else if (event.refused !== undefined) this.#dials.get(id)?.({ refused: event.refused });
    else if (event.frame !== undefined) this.#inboxes.get(id)?.push(event.frame);
    else if (event.closed === true) {
      this.#dials.get(id)?.({ refused: undefined });
      this.#inboxes.get(id)?.end();
    }
  }

  async #decide(id: string, hello: HelloJson): Promise<void> {
    const decision = await this.#listener!.decide(hello);
    if ("welcome" in decision) {
      this.#inboxes.set(id, new Inbox());
      this.#hellos.set(id, hello);
    }
    this.#command({ do: "decide", id, ...decision });
    if ("welcome" in decision) this.#listener!.onConnection(hello, this.#connection(id));
  }

  #connection(id: string): WireConnection {
    const inbox = this.#inboxes.get(id)!;
    return {
      send: (frame) => this.#command({ do: "send", id, frame }),
      receive: () => inbox.next(),
      end: () => this.#command({ do: "end", id }),
    };
  }
}
