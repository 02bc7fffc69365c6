/**
 * Finding a nats-server: on PATH, in our cache, or fetched into the cache.
 */
import { execFile } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { DevError } from "../../errors/index.js";
import { findProgram } from "../find-program.js";
import { cachedBinary, keepBinary } from "./cache.js";
import { debianPackage } from "./debian-package.js";
import { goInstall } from "./go-install.js";
import { officialRelease } from "./official-release.js";

/** The oldest release whose JetStream and options this project works with. */
const MINIMUM_VERSION = [2, 9] as const;

/** A nats-server that runs on this machine. */
export interface NatsBinary {
  readonly program: string;
  /** Such as `2.14.5`. */
  readonly version: string;
  /** Where it comes from, in words. */
  readonly origin: string;
}

/** A way to get a nats-server. */
export interface NatsSource {
  /** What it is, in words. */
  readonly name: string;
  /**
   * Fetches programs into the directory and yields them, the preferred one first; the next one is asked for only if one
   * does not run here. Throws if there is none.
   */
  fetch(directory: string, signal?: AbortSignal): AsyncIterable<FetchedProgram>;
}

/** A program that a source has put on disk. */
export interface FetchedProgram {
  readonly program: string;
  /** Which source and how it was verified, in words. */
  readonly origin: string;
}

/** How the search goes. */
export interface NatsSearch {
  /** Told what takes time. */
  readonly onProgress?: (message: string) => void;
  readonly signal?: AbortSignal | undefined;
  /** The ways to fetch it, in the order of trying; by default all that this project knows. */
  readonly sources?: readonly NatsSource[];
}

/** Finds or fetches a nats-server that runs here. Throws `dev_server_failed`, naming each way and why it failed. */
export async function findNatsServer(search: NatsSearch = {}): Promise<NatsBinary> {
  const onPath = findProgram("nats-server");
  const version = onPath && (await versionOf(onPath));
  if (onPath !== undefined && version) return { program: onPath, version, origin: "PATH" };
  return (await cachedBinary(versionOf)) ?? (await fetchNatsServer(search));
}

/** Fetches a nats-server into the cache. Throws `dev_server_failed`, naming each way and why it failed. */
export async function fetchNatsServer(search: NatsSearch): Promise<NatsBinary> {
  const { signal, onProgress, sources = [officialRelease(), debianPackage(), goInstall()] } = search;
  const failures: string[] = [];
  const directory = mkdtempSync(join(tmpdir(), "hawser-fetch-"));
  try {
    for (const source of sources) {
      onProgress?.(`Fetching nats-server: ${source.name}`);
      try {
        for await (const fetched of source.fetch(directory, signal)) {
          const version = await versionOf(fetched.program);
          if (version !== undefined) return keepBinary({ ...fetched, version });
          failures.push(`${fetched.origin}: does not run on this machine`);
        }
      } catch (error) {
        signal?.throwIfAborted();
        failures.push(`${source.name}: ${reasonOf(error)}`);
      }
    }
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
  throw new DevError(
    "dev_server_failed",
    `No nats-server is on PATH or in the cache, and none could be fetched:\n${failures.map((f) => `  - ${f}`).join("\n")}\n` +
      "Install nats-server 2.9 or newer, or set HAWSER_NATS_URL to use a running one.",
  );
}

/** The version a program prints, or undefined if it does not run here or is too old. */
async function versionOf(program: string): Promise<string | undefined> {
  try {
    const { stdout } = await promisify(execFile)(program, ["-v"], { timeout: 10_000 });
    const [version, major, minor] = /(\d+)\.(\d+)\.\d+\S*/.exec(stdout) ?? [];
    const [minMajor, minMinor] = MINIMUM_VERSION;
    const enough = Number(major) > minMajor || (Number(major) === minMajor && Number(minor) >= minMinor);
    return enough ? version : undefined;
  } catch {
    return undefined;
  }
}

/** The innermost reason of an error, in one line: fetch and execFile hide theirs in causes and in stderr. */
function reasonOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  const stderr = (error as { stderr?: string }).stderr?.trim().split("\n").at(-1);
  if (stderr) return stderr;
  return error.cause instanceof Error ? `${error.message} (${reasonOf(error.cause)})` : error.message.split("\n")[0]!;
}
