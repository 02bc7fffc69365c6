/**
 * Fetched nats-servers, kept for the next start. Each has a directory of its own, which is made elsewhere and renamed
 * into place, so that starts at the same time cannot see half of it; what was recorded of it is checked at each use.
 */
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
import { join } from "node:path";
import { DevError } from "../../errors/index.js";
import { cacheDirectory } from "../cache-directory.js";
import type { FetchedProgram, NatsBinary } from "./binary.js";

const PROGRAM = "nats-server";
const RECORD = "origin.json";

/** What is recorded beside a cached program. */
interface CacheRecord {
  readonly version: string;
  readonly origin: string;
  /** Of the program file. */
  readonly sha256: string;
}

/** The newest cached program whose checksum is the recorded one and that runs, as `versionOf` tells. */
export async function cachedBinary(
  versionOf: (program: string) => Promise<string | undefined>,
): Promise<NatsBinary | undefined> {
  const root = cacheRoot();
  if (!existsSync(root)) return undefined;
  const byVersion = new Intl.Collator("en", { numeric: true });
  for (const name of readdirSync(root).sort(byVersion.compare).reverse()) {
    if (!name.endsWith(platformSuffix())) continue;
    const program = join(root, name, PROGRAM);
    const record = readRecord(join(root, name, RECORD));
    if (record === undefined || sha256Of(program) !== record.sha256) continue;
    const version = await versionOf(program);
    if (version !== undefined) return { program, version, origin: `cache (${record.origin})` };
  }
  return undefined;
}

/** Copies a program that runs into the cache. */
export function keepBinary(fetched: FetchedProgram & { readonly version: string }): NatsBinary {
  const { program, version, origin } = fetched;
  const root = cacheRoot();
  try {
    mkdirSync(root, { recursive: true });
    const draft = mkdtempSync(join(root, ".draft-"));
    copyFileSync(program, join(draft, PROGRAM));
    chmodSync(join(draft, PROGRAM), 0o755);
    const record: CacheRecord = { version, origin, sha256: sha256Of(program)! };
    writeFileSync(join(draft, RECORD), `${JSON.stringify(record, null, 2)}\n`);
    chmodSync(draft, 0o755);
    const place = join(root, `${version}${platformSuffix()}`);
    moveInto(place, draft, record);
    return { program: join(place, PROGRAM), version, origin };
  } catch (cause) {
    throw new DevError(
      "dev_server_failed",
      `nats-server ${version} was fetched, but could not be kept in ${root}. Set HAWSER_CACHE_DIR to a writable directory.`,
      { cause },
    );
  }
}

/** Renames the draft into place, unless another start has put a sound one there meanwhile. */
function moveInto(place: string, draft: string, record: CacheRecord): void {
  const sound = () => sha256Of(join(place, PROGRAM)) === readRecord(join(place, RECORD))?.sha256;
  // A damaged one is moved away first: a directory cannot be renamed over one with contents.
  if (existsSync(place) && sha256Of(join(place, PROGRAM)) !== record.sha256) {
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
