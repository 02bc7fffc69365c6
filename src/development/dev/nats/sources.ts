/**
 * Sources of nats-server. The first is the official release: the archive from its GitHub releases page, with a pinned
 * checksum.
 */
import { execFile } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { promisify } from "node:util";
import { gunzipSync } from "node:zlib";
import { HawserError } from "../../../foundation/errors/index.js";
import { findProgram } from "../server-process.js";

/** Source of a nats-server. */
export interface NatsSource {
  /** Description in words. */
  readonly name: string;
  /**
   * Fetches programs into the directory and yields them, the preferred one first; the next is requested only if one
   * does not run on this machine. Throws if there is none.
   */
  fetch(directory: string, signal?: AbortSignal): AsyncIterable<FetchedProgram>;
}

/** Program that a source has written to disk. */
export interface FetchedProgram {
  readonly program: string;
  /** Source and its verification, in words. */
  readonly origin: string;
}

/** Release that is fetched; `go install` builds the same one. */
export const natsServerVersion = "2.14.5";

/**
 * SHA-256 of `nats-server-v2.14.5-<key>.tar.gz`. The two for Linux equal those in the Dockerfile of the official image
 * (nats-io/nats-docker, 2.14.x); all four equal those in the package index of cashapp/hermit-packages, which takes them
 * from the release's SHA256SUMS. To change the version, replace all of them.
 */
const SHA256: Readonly<Record<string, string>> = {
  "linux-amd64": "5e3b603d47c447bda1f77f9ac16dbf91c90aac4ff3681f8fbbc7201e4ed99355",
  "linux-arm64": "673a98d3faa79dde3f9ebf16d6dfac36a5f694e7ad2015e4954dd7939c85cd4c",
  "darwin-amd64": "f95c98d6b6ed2b63c5681b46b092c9585c99767d547cf495730c329234625e96",
  "darwin-arm64": "ddd907854d9a2de834af133fa396915fe6442fe6d8909ae31390d1ea7a0fea50",
};

/** Time limit of the whole download. */
const downloadTimeoutMs = 120_000;

/** Web site with the archives of releases. Tests use their own. */
export interface ReleaseSite {
  /** URL of the parent of the versions' directories. */
  readonly url: string;
  /** SHA-256 of the archives by platform, such as `linux-amd64`. */
  readonly checksums: Readonly<Record<string, string>>;
  /** Time in which the server must begin its answer. */
  readonly answerTimeoutMs: number;
}

const gitHub: ReleaseSite = {
  url: "https://github.com/nats-io/nats-server/releases/download",
  checksums: SHA256,
  // A blocked network must not delay the other sources.
  answerTimeoutMs: 5_000,
};

/** Official release for this platform. */
export function officialRelease(site: ReleaseSite = gitHub): NatsSource {
  return {
    name: `official release ${natsServerVersion}`,
    async *fetch(directory, signal): AsyncIterable<FetchedProgram> {
      const platform = releasePlatform();
      const expected = site.checksums[platform];
      if (expected === undefined) throw new HawserError("not_supported", `no checksum is pinned for ${platform}`);
      const name = `nats-server-v${natsServerVersion}-${platform}`;
      const archive = await download(`${site.url}/v${natsServerVersion}/${name}.tar.gz`, site.answerTimeoutMs, signal);
      const actual = createHash("sha256").update(archive).digest("hex");
      if (actual !== expected) {
        throw new HawserError("dev_server_failed", `${name}.tar.gz has SHA-256 ${actual}; expected ${expected}`);
      }
      await unpack(gunzipSync(archive), directory);
      yield { program: join(directory, name, "nats-server"), origin: `official release, archive SHA-256 ${expected}` };
    },
  };
}

/** Name of this platform in the archives of a release. */
export function releasePlatform(): string {
  return `${process.platform}-${process.arch === "x64" ? "amd64" : process.arch}`;
}

/** Downloads a file into memory: the archive has 7 MB. */
async function download(url: string, answerTimeoutMs: number, signal: AbortSignal | undefined): Promise<Buffer> {
  const late = new AbortController();
  const timer = setTimeout(() => late.abort(new Error(`no answer in ${answerTimeoutMs} ms`)), answerTimeoutMs);
  const signals = [late.signal, AbortSignal.timeout(downloadTimeoutMs), ...(signal ? [signal] : [])];
  try {
    const response = await fetch(url, { signal: AbortSignal.any(signals) });
    clearTimeout(timer);
    if (!response.ok) throw new HawserError("dev_server_failed", `${url} answers ${response.status}`);
    return Buffer.from(await response.arrayBuffer());
  } finally {
    clearTimeout(timer);
  }
}

/** Unpacks a tar archive with the system's tar. */
async function unpack(archive: Buffer, directory: string): Promise<void> {
  await new Promise<void>((resolve, reject) => {
    const tar = execFile("tar", ["-xf", "-", "-C", directory], (error) => (error ? reject(error) : resolve()));
    // If tar ends early, its exit status has the reason; the broken pipe adds nothing.
    tar.stdin?.on("error", () => undefined);
    tar.stdin?.end(archive);
  });
}

/*
 * Second source: nats-server built from its source by the Go toolchain, which verifies downloads with Go's checksum
 * database.
 */

/** Time limit of compiling, which takes a minute or two on two cores. */
const buildTimeoutMs = 600_000;

/**
 * `go install` of a version, by default the version of the official release.
 *
 * @param version any version query of Go: `2.9` is the newest 2.9
 */
export function goInstall(version = natsServerVersion): NatsSource {
  return {
    name: `go install of version ${version}`,
    async *fetch(directory, signal): AsyncIterable<FetchedProgram> {
      const go = findProgram("go");
      if (go === undefined) throw new HawserError("not_supported", "no Go toolchain is on PATH");
      await promisify(execFile)(go, ["install", `github.com/nats-io/nats-server/v2@v${version}`], {
        cwd: directory,
        // Without cgo, the program has no dependencies, and building it needs no C compiler.
        env: { ...process.env, GOBIN: directory, CGO_ENABLED: "0" },
        timeout: buildTimeoutMs,
        ...(signal && { signal }),
      });
      yield {
        program: join(directory, "nats-server"),
        origin: "built by go install, verified by Go's checksum database",
      };
    },
  };
}

/*
 * Third source: programs from Debian's packages, without root and without changes of the system. apt uses private
 * directories and the mirror of this machine, and checks the archive's signature with the system's keyring and each file
 * against the archive; `dpkg -x` only unpacks.
 */

const run = promisify(execFile);

const keyring = "/usr/share/keyrings/debian-archive-keyring.gpg";
/**
 * Releases with newer programs than the machine's own, newest first; their Go programs are mostly static enough to run
 * here.
 */
const newerReleases = ["sid", "trixie"];
const commandTimeoutMs = 120_000;
/** Time after which a silent mirror is unreachable for apt. */
const mirrorTimeoutSeconds = 10;

/** Program, and the package that contains it. */
export interface DebianProgram {
  readonly package: string;
  /** Path below the root directory. */
  readonly path: string;
}

/** Debian's package, from the newest release first. */
export function debianPackage(
  program: DebianProgram = { package: "nats-server", path: "usr/sbin/nats-server" },
): NatsSource {
  return {
    name: "Debian package",
    async *fetch(directory, signal): AsyncIterable<FetchedProgram> {
      const { mirror, codename } = await debianSystem();
      const failures: unknown[] = [];
      for (const release of new Set([...newerReleases, codename])) {
        try {
          yield await fetchFrom(program, release, mirror, directory, signal);
        } catch (error) {
          signal?.throwIfAborted();
          failures.push(error);
        }
      }
      if (failures.length > 0) throw failures.at(-1);
    },
  };
}

/** Mirror that this machine's apt uses for its own release. Throws `not_supported` on other systems than Debian. */
async function debianSystem(): Promise<{ mirror: string; codename: string }> {
  const osRelease = existsSync("/etc/os-release") ? readFileSync("/etc/os-release", "utf8") : "";
  const codename = /^VERSION_CODENAME=(\w+)$/m.exec(osRelease)?.[1] ?? "sid";
  if (!/^ID=debian$/m.test(osRelease) || !findProgram("apt-get") || !findProgram("dpkg")) {
    throw new HawserError("not_supported", "this machine does not run Debian");
  }
  const { stdout } = await run("apt-get", ["indextargets", "--format", "$(RELEASE) $(COMPONENT) $(REPO_URI)"]);
  const mirror = stdout
    .split("\n")
    .map((line) => line.split(" "))
    .find(([release, component]) => release === codename && component === "main")?.[2];
  if (mirror === undefined) throw new HawserError("not_supported", `apt has no source for ${codename}`);
  return { mirror, codename };
}

/** Downloads and unpacks the package of one release. */
async function fetchFrom(
  program: DebianProgram,
  release: string,
  mirror: string,
  parent: string,
  signal: AbortSignal | undefined,
): Promise<FetchedProgram> {
  const directory = mkdtempSync(join(parent, `${release}-`));
  const apt = privateApt(directory, `${mirror} ${release} main`);
  const limits = { cwd: directory, timeout: commandTimeoutMs, ...(signal && { signal }) };
  await run("apt-get", [...apt, "update"], limits);
  await run("apt-get", [...apt, "download", program.package], limits);
  const archive = readdirSync(directory).find((name) => name.endsWith(".deb"));
  if (archive === undefined)
    throw new HawserError("dev_server_failed", `apt downloaded no ${program.package} from ${release}`);
  await run("dpkg", ["-x", archive, "unpacked"], limits);
  return {
    program: join(directory, "unpacked", program.path),
    origin: `Debian ${release}, package ${archive.replace(/\.deb$/, "").replaceAll("%3a", ":")}, verified by apt`,
  };
}

/** Options of apt for a private source list, lists, cache and package state. */
function privateApt(directory: string, source: string): string[] {
  const path = (name: string) => join(directory, name);
  for (const name of ["state/lists/partial", "cache/archives/partial", "parts"]) {
    mkdirSync(path(name), { recursive: true });
  }
  const signedBy = existsSync(keyring) ? `[signed-by=${keyring}] ` : "";
  writeFileSync(path("sources.list"), `deb ${signedBy}${source}\n`);
  writeFileSync(path("status"), "");
  const options = {
    "Dir::Etc::SourceList": path("sources.list"),
    "Dir::Etc::SourceParts": path("parts"),
    "Dir::Etc::Preferences": path("status"),
    "Dir::Etc::PreferencesParts": path("parts"),
    "Dir::State": path("state"),
    "Dir::State::Lists": path("state/lists"),
    "Dir::State::status": path("status"),
    "Dir::Cache": path("cache"),
    "Acquire::Languages": "none",
    "Acquire::PDiffs": "false",
    "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled": "false",
    "Acquire::Retries": "1",
    "Acquire::http::Timeout": mirrorTimeoutSeconds,
    "Acquire::https::Timeout": mirrorTimeoutSeconds,
    // A failed index is an error, not a warning, because there is no older one to fall back to.
    "APT::Update::Error-Mode": "any",
  };
  return ["-q", ...Object.entries(options).flatMap(([name, value]) => ["-o", `${name}=${value}`])];
}
