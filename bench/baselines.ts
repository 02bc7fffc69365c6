/**
 * Programs that Hawser is compared with and that do not come with it: packages from the npm registry, kept in the cache
 * directory as Node 24 and Postgres versions of the tests are, and what variables name.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { createRequire } from "node:module";
import { join } from "node:path";
import { createInterface, type Interface } from "node:readline";
import { pathToFileURL } from "node:url";
import { installNode } from "../scripts/node/install-node.js";
import { installPackage } from "../scripts/npm-cache/install-package.js";
import { cacheDirectory } from "../src/development/dev/index.js";
import { BenchFailure } from "./suite.js";

/** The variables, each with what it names, in the words of `--help`. */
export const variables = {
  HAWSER_BENCH_LINER: "liner, built from bench/liner/native: see bench/liner/native/Cargo.toml",
  HAWSER_BENCH_RIVER: "a program that does the suites offline and handlers with river: see their files in bench",
  HAWSER_BENCH_PGMQ_SQL: "the file pgmq.sql of pgmq, its SQL without the extension",
} as const;

/** Name of an environment variable in {@link variables}. */
export type BaselineVariable = keyof typeof variables;

/** The value of an environment variable; undefined if it is unset or empty. */
export function baselineOf(variable: BaselineVariable): string | undefined {
  return process.env[variable] || undefined;
}

/** Note for the results of a run without the baseline. */
export function missingNote(name: string, variable: BaselineVariable): string {
  return `${name} was not measured: ${variable} is not set`;
}

/** Packages of the npm registry that are measured, in these versions. */
export const packages = {
  "pg-boss": "12.38.0",
  "graphile-worker": "0.18.0",
  bullmq: "6.7.0",
  "@connectrpc/connect-node": "2.2.0",
  "@grpc/grpc-js": "1.14.7",
  "@trpc/client": "11.25.2",
  zeromq: "6.8.0",
} as const;

type BaselinePackage = keyof typeof packages;

/** Packages that those need beside them. */
const companions: Readonly<Partial<Record<BaselinePackage, readonly string[]>>> = {
  bullmq: ["pg@8.23.1"],
  "@connectrpc/connect-node": ["@connectrpc/connect@2.2.0", "@bufbuild/protobuf@2.17.0"],
  "@trpc/client": [`@trpc/server@${packages["@trpc/client"]}`, "ws@8.23.0"],
};

/** Finds the package in the cache directory, or installs it there. @returns the module to import */
export function baselinePackage(name: BaselinePackage): string {
  const version = packages[name];
  const place = join(cacheDirectory(), "bench", `${name.replace("/", "-")}-${version}`);
  return pathToFileURL(join(installPackage(name, version, place, companions[name]), "dist", "index.js")).href;
}

/** Loads that package, or a module beside it, as CommonJS. `M` is its type. */
export function requireBaseline<M>(name: BaselinePackage, module: string = name): M {
  return createRequire(baselinePackage(name))(module) as M;
}

/** A program `node` of at least that major version: this one, or the newest Node 24 from the registry. */
export function nodeFrom(major: number): string {
  return Number(process.versions.node.split(".")[0]) >= major ? process.execPath : installNode("24").program;
}

/** The program `node` for a process of that library: the job queues get one that all of them support. */
export function nodeFor(library: string): string {
  return ["pg-boss", "graphile-worker", "BullMQ"].includes(library) ? nodeFrom(22) : process.execPath;
}

/** Time that a program has to exit by itself before it is killed. */
const stopTimeoutMs = 5_000;

/**
 * A running program that is no worker of ours: it takes one order on each line of its standard input, and answers each
 * with a line of numbers. It ends when its input does.
 */
export class LineProgram {
  readonly #name: string;
  readonly #child: ChildProcess;
  readonly #lines: Interface;
  readonly #ended: Promise<[status: number | null, signal: NodeJS.Signals | null]>;

  private constructor(name: string, child: ChildProcess) {
    this.#name = name;
    this.#child = child;
    this.#lines = createInterface({ input: child.stdout! });
    this.#ended = once(child, "close") as Promise<[number | null, NodeJS.Signals | null]>;
    this.#ended.catch(() => undefined);
    // A program that has ended takes no orders; that it has ended is found out below.
    child.stdin!.on("error", () => undefined);
  }

  /** Starts it. */
  static start(name: string, program: string, args: readonly string[]): LineProgram {
    return new LineProgram(name, spawn(program, args, { stdio: ["pipe", "pipe", 2] }));
  }

  /** Gives an order. @returns the number that is the answer */
  async order(line: string): Promise<number> {
    const answered = once(this.#lines, "line");
    this.#child.stdin!.write(`${line}\n`);
    const ended = this.#ended.then(
      ([status, signal]) => {
        throw new BenchFailure(`${this.#name} has ended (${signal ?? `status ${status}`}); see its output above`);
      },
      (cause) => {
        throw new BenchFailure(`${this.#name} cannot be started`, { cause });
      },
    );
    const [answer] = (await Promise.race([answered, ended])) as [string];
    const number = Number(answer);
    if (!(number >= 0)) throw new BenchFailure(`${this.#name} has answered "${answer}" to "${line}"`);
    return number;
  }

  async stop(): Promise<void> {
    this.#child.stdin!.end();
    const force = setTimeout(() => this.#child.kill("SIGKILL"), stopTimeoutMs);
    await this.#ended.catch(() => undefined);
    clearTimeout(force);
  }
}
