/**
 * The official release of nats-server: the archive from its GitHub releases page, with a pinned checksum.
 */
import { execFile } from "node:child_process";
import { createHash } from "node:crypto";
import { join } from "node:path";
import { gunzipSync } from "node:zlib";
import { DevError } from "../../errors/index.js";
import type { FetchedProgram, NatsSource } from "./binary.js";

/** The release that is fetched; `go install` builds the same one. */
export const NATS_SERVER_VERSION = "2.14.5";

/**
 * SHA-256 of `nats-server-v2.14.5-<key>.tar.gz`. The two of Linux are those in the Dockerfile of the official image
 * (nats-io/nats-docker, 2.14.x), all four those in the package index of cashapp/hermit-packages, which takes them from
 * the release's SHA256SUMS. To change the version, replace them all.
 */
const SHA256: Readonly<Record<string, string>> = {
  "linux-amd64": "5e3b603d47c447bda1f77f9ac16dbf91c90aac4ff3681f8fbbc7201e4ed99355",
  "linux-arm64": "673a98d3faa79dde3f9ebf16d6dfac36a5f694e7ad2015e4954dd7939c85cd4c",
  "darwin-amd64": "f95c98d6b6ed2b63c5681b46b092c9585c99767d547cf495730c329234625e96",
  "darwin-arm64": "ddd907854d9a2de834af133fa396915fe6442fe6d8909ae31390d1ea7a0fea50",
};

/** How long the whole download may take. */
const DOWNLOAD_TIMEOUT_MS = 120_000;

/** Where a release is, for tests that have one of their own. */
export interface ReleaseSite {
  /** The URL above the directory of each version. */
  readonly url: string;
  /** SHA-256 of the archives by platform, such as `linux-amd64`. */
  readonly checksums: Readonly<Record<string, string>>;
  /** How long the server may take to begin its answer. */
  readonly answerTimeoutMs: number;
}

const GITHUB: ReleaseSite = {
  url: "https://github.com/nats-io/nats-server/releases/download",
  checksums: SHA256,
  // A blocked network must not hold up the other sources.
  answerTimeoutMs: 5_000,
};

/** The official release for this platform. */
export function officialRelease(site: ReleaseSite = GITHUB): NatsSource {
  return {
    name: `official release ${NATS_SERVER_VERSION}`,
    async *fetch(directory, signal): AsyncIterable<FetchedProgram> {
      const platform = releasePlatform();
      const expected = site.checksums[platform];
      if (expected === undefined) throw new DevError("not_supported", `no checksum is pinned for ${platform}`);
      const name = `nats-server-v${NATS_SERVER_VERSION}-${platform}`;
      const archive = await download(
        `${site.url}/v${NATS_SERVER_VERSION}/${name}.tar.gz`,
        site.answerTimeoutMs,
        signal,
      );
      const actual = createHash("sha256").update(archive).digest("hex");
      if (actual !== expected) {
        throw new DevError("dev_server_failed", `${name}.tar.gz has SHA-256 ${actual}; expected ${expected}`);
      }
      await unpack(gunzipSync(archive), directory);
      yield { program: join(directory, name, "nats-server"), origin: `official release, archive SHA-256 ${expected}` };
    },
  };
}

/** This platform's name in the archives of a release. */
export function releasePlatform(): string {
  return `${process.platform}-${process.arch === "x64" ? "amd64" : process.arch}`;
}

/** Downloads a file into memory: the archive has 7 MB. */
async function download(url: string, answerTimeoutMs: number, signal: AbortSignal | undefined): Promise<Buffer> {
  const late = new AbortController();
  const timer = setTimeout(() => late.abort(new Error(`no answer in ${answerTimeoutMs} ms`)), answerTimeoutMs);
  const signals = [late.signal, AbortSignal.timeout(DOWNLOAD_TIMEOUT_MS), ...(signal ? [signal] : [])];
  try {
    const response = await fetch(url, { signal: AbortSignal.any(signals) });
    clearTimeout(timer);
    if (!response.ok) throw new DevError("dev_server_failed", `${url} answers ${response.status}`);
    return Buffer.from(await response.arrayBuffer());
  } finally {
    clearTimeout(timer);
  }
}

/** Unpacks a tar archive with the system's tar. */
async function unpack(archive: Buffer, directory: string): Promise<void> {
  await new Promise<void>((resolve, reject) => {
    const tar = execFile("tar", ["-xf", "-", "-C", directory], (error) => (error ? reject(error) : resolve()));
    // If tar ends early, its exit status tells why; the broken pipe adds nothing.
    tar.stdin?.on("error", () => undefined);
    tar.stdin?.end(archive);
  });
}
