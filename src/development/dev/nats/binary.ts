/** Search for a nats-server: on PATH, in the cache, or fetched into the cache. */
import { execFile } from "node:child_process";
import { createHash } from "node:crypto";
import {
  chmodSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { homedir, tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { HawserError } from "../../../foundation/errors/index.js";
import { findProgram } from "../server-process.js";
import { debianPackage, type FetchedProgram, goInstall, type NatsSource, officialRelease } from "./sources.js";

/** Oldest release whose JetStream and options this project supports. */
const minimumVersion = [2, 9] as const;

/** nats-server that runs on this machine. */
export interface NatsBinary {
  readonly program: string;
  /** Version, such as `2.14.5`. */
  readonly version: string;
  /** Description of the origin for people, such as the path or the release. */
  readonly origin: string;
}

/** Options of the search. */
export interface NatsSearch {
  /** Called with a message before each slow step. */
  readonly onProgress?: (message: string) => void;
  readonly signal?: AbortSignal | undefined;
  /** Sources in the order of trying; by default all that this project knows. */
  readonly sources?: readonly NatsSource[];
}

/**
 * Finds or fetches a nats-server that runs on this machine. Throws `dev_server_failed` with each source and its
 * failure.
 */
export async function findNatsServer(search: NatsSearch = {}): Promise<NatsBinary> {
  const onPath = findProgram("nats-server");
  const version = onPath && (await versionOf(onPath));
  if (onPath !== undefined && version) return { program: onPath, version, origin: "PATH" };
  return (await cachedBinary()) ?? (await fetchNatsServer(search));
}

/** Fetches a nats-server into the cache. Throws `dev_server_failed` with each source and its failure. */
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
  throw new HawserError(
    "dev_server_failed",
    `No nats-server is on PATH or in the cache, and none could be fetched:\n${failures.map((f) => `  - ${f}`).join("\n")}\n` +
      "Install nats-server 2.9 or newer, or set HAWSER_NATS_URL to use a running one.",
  );
}

/** Version that a program prints; undefined if it does not run on this machine or is too old. */
async function versionOf(program: string): Promise<string | undefined> {
  try {
    const { stdout } = await promisify(execFile)(program, ["-v"], { timeout: 10_000 });
    const [version, major, minor] = /(\d+)\.(\d+)\.\d+\S*/.exec(stdout) ?? [];
    const [minMajor, minMinor] = minimumVersion;
    const enough = Number(major) > minMajor || (Number(major) === minMajor && Number(minor) >= minMinor);
    return enough ? version : undefined;
  } catch {
    return undefined;
  }
}

/** Innermost reason of an error, in one line. Errors of fetch have it in their causes, errors of execFile in stderr. */
function reasonOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  const stderr = (error as { stderr?: string }).stderr?.trim().split("\n").at(-1);
  if (stderr) return stderr;
  return error.cause instanceof Error ? `${error.message} (${reasonOf(error.cause)})` : error.message.split("\n")[0]!;
}

const programFile = "nats-server";
const recordFile = "origin.json";

/** Record beside a cached program. */
interface CacheRecord {
  readonly version: string;
  readonly origin: string;
  /** SHA-256 of the program file. */
  readonly sha256: string;
}

/** Newest cached program that matches its recorded checksum and runs. */
async function cachedBinary(): Promise<NatsBinary | undefined> {
  const root = cacheRoot();
  if (!existsSync(root)) return undefined;
  const byVersion = new Intl.Collator("en", { numeric: true });
  for (const name of readdirSync(root).sort(byVersion.compare).reverse()) {
    if (!name.endsWith(platformSuffix())) continue;
    const program = join(root, name, programFile);
    const record = readRecord(join(root, name, recordFile));
    if (record === undefined || sha256Of(program) !== record.sha256) continue;
    const version = await versionOf(program);
    if (version !== undefined) return { program, version, origin: `cache (${record.origin})` };
  }
  return undefined;
}

/** Copies a program that runs into the cache. */
function keepBinary(fetched: FetchedProgram & { readonly version: string }): NatsBinary {
  const { program, version, origin } = fetched;
  const root = cacheRoot();
  try {
    mkdirSync(root, { recursive: true });
    const draft = mkdtempSync(join(root, ".draft-"));
    copyFileSync(program, join(draft, programFile));
    chmodSync(join(draft, programFile), 0o755);
    const record: CacheRecord = { version, origin, sha256: sha256Of(program)! };
    writeFileSync(join(draft, recordFile), `${JSON.stringify(record, null, 2)}\n`);
    chmodSync(draft, 0o755);
    const place = join(root, `${version}${platformSuffix()}`);
    moveInto(place, draft, record);
    return { program: join(place, programFile), version, origin };
  } catch (cause) {
    throw new HawserError(
      "dev_server_failed",
      `nats-server ${version} was fetched, but could not be kept in ${root}. Set HAWSER_CACHE_DIR to a writable directory.`,
      { cause },
    );
  }
}

/** Renames the draft into place, unless another start has put an intact program there in the meantime. */
function moveInto(place: string, draft: string, record: CacheRecord): void {
  const sound = () => sha256Of(join(place, programFile)) === readRecord(join(place, recordFile))?.sha256;
  // A damaged program is moved away first, because a directory cannot replace a directory with contents.
  if (existsSync(place) && sha256Of(join(place, programFile)) !== record.sha256) {
    const damaged = mkdtempSync(`${draft}-`);
    renameSync(place, join(damaged, "old"));
    rmSync(damaged, { recursive: true, force: true });
  }
  try {
    renameSync(draft, place);
  } catch (error) {
    if (!sound()) throw error;
    rmSync(draft, { recursive: true, force: true });
  }
}

function cacheRoot(): string {
  return join(cacheDirectory(), "nats-server");
}

function platformSuffix(): string {
  return `-${process.platform}-${process.arch}`;
}

function readRecord(path: string): CacheRecord | undefined {
  try {
    return JSON.parse(readFileSync(path, "utf8")) as CacheRecord;
  } catch {
    return undefined;
  }
}

function sha256Of(path: string): string | undefined {
  try {
    return createHash("sha256").update(readFileSync(path)).digest("hex");
  } catch {
    return undefined;
  }
}

/** Directory of downloaded programs: HAWSER_CACHE_DIR, otherwise `hawser` in the user's cache directory. */
export function cacheDirectory(): string {
  const { HAWSER_CACHE_DIR: own, XDG_CACHE_HOME: xdg } = process.env;
  if (own) return own;
  return join(xdg || join(homedir(), ".cache"), "hawser");
}
