/**
 * Programs out of Debian's packages, without root and without touching the system: apt with directories of its own, from
 * the mirror that this machine already uses. apt checks the archive's signature with the system's keyring and each file
 * against it; `dpkg -x` only unpacks.
 */
import { execFile } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { promisify } from "node:util";
import { DevError } from "../../errors/index.js";
import { findProgram } from "../find-program.js";
import type { FetchedProgram, NatsSource } from "./binary.js";

const run = promisify(execFile);

const KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg";
/** Releases with newer programs than the machine's own, newest first; those in Go are static enough to run here, mostly. */
const NEWER_RELEASES = ["sid", "trixie"];
const COMMAND_TIMEOUT_MS = 120_000;
/** How long a mirror may be silent. */
const MIRROR_TIMEOUT_S = 10;

/** A program, and the package that has it. */
export interface DebianProgram {
  readonly package: string;
  /** Below the root. */
  readonly path: string;
}

/** Debian's package, newest release first. */
export function debianPackage(
  program: DebianProgram = { package: "nats-server", path: "usr/sbin/nats-server" },
): NatsSource {
  return {
    name: "Debian package",
    async *fetch(directory, signal): AsyncIterable<FetchedProgram> {
      const { mirror, codename } = await debianSystem();
      const failures: unknown[] = [];
      for (const release of new Set([...NEWER_RELEASES, codename])) {
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

/** The mirror this machine's apt uses for its own release. Throws `not_supported` where it is not Debian. */
async function debianSystem(): Promise<{ mirror: string; codename: string }> {
  const osRelease = existsSync("/etc/os-release") ? readFileSync("/etc/os-release", "utf8") : "";
  const codename = /^VERSION_CODENAME=(\w+)$/m.exec(osRelease)?.[1] ?? "sid";
  if (!/^ID=debian$/m.test(osRelease) || !findProgram("apt-get") || !findProgram("dpkg")) {
    throw new DevError("not_supported", "this machine is not a Debian");
  }
  const { stdout } = await run("apt-get", ["indextargets", "--format", "$(RELEASE) $(COMPONENT) $(REPO_URI)"]);
  const mirror = stdout
    .split("\n")
    .map((line) => line.split(" "))
    .find(([release, component]) => release === codename && component === "main")?.[2];
  if (mirror === undefined) throw new DevError("not_supported", `apt has no source for ${codename}`);
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
  const limits = { cwd: directory, timeout: COMMAND_TIMEOUT_MS, ...(signal && { signal }) };
  await run("apt-get", [...apt, "update"], limits);
  await run("apt-get", [...apt, "download", program.package], limits);
  const archive = readdirSync(directory).find((name) => name.endsWith(".deb"));
  if (archive === undefined)
    throw new DevError("dev_server_failed", `apt downloaded no ${program.package} from ${release}`);
  await run("dpkg", ["-x", archive, "unpacked"], limits);
  return {
    program: join(directory, "unpacked", program.path),
    origin: `Debian ${release}, package ${archive.replace(/\.deb$/, "").replaceAll("%3a", ":")}, verified by apt`,
  };
}

/** apt's options for a source list, lists, cache and package state of its own. */
function privateApt(directory: string, source: string): string[] {
  const path = (name: string) => join(directory, name);
  for (const name of ["state/lists/partial", "cache/archives/partial", "parts"]) {
    mkdirSync(path(name), { recursive: true });
  }
  const signedBy = existsSync(KEYRING) ? `[signed-by=${KEYRING}] ` : "";
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
    "Acquire::http::Timeout": MIRROR_TIMEOUT_S,
    "Acquire::https::Timeout": MIRROR_TIMEOUT_S,
    // A failed index is an error and not a warning: we have no older one to go on with.
    "APT::Update::Error-Mode": "any",
  };
  return ["-q", ...Object.entries(options).flatMap(([name, value]) => ["-o", `${name}=${value}`])];
}
