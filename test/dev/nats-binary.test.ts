import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import { chmodSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { createServer, type RequestListener } from "node:http";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it, onTestFinished, vi } from "vitest";
import { fetchNatsServer, findNatsServer } from "../../src/development/dev/nats/binary.js";
import {
  debianPackage,
  goInstall,
  type NatsSource,
  natsServerVersion,
  officialRelease,
  releasePlatform,
} from "../../src/development/dev/nats/sources.js";
import { temporaryDirectory } from "../support/temporary.js";

let cache: string;

beforeEach(() => {
  cache = temporaryDirectory();
  vi.stubEnv("HAWSER_CACHE_DIR", cache);
});

afterEach(() => {
  vi.unstubAllEnvs();
});

/** A program that prints a version as nats-server does. Which one is found and kept is all that matters here. */
function writeProgram(directory: string, version: string): string {
  mkdirSync(directory, { recursive: true });
  const program = join(directory, "nats-server");
  writeFileSync(program, `#!/bin/sh\necho "nats-server: v${version}"\n`);
  chmodSync(program, 0o755);
  return program;
}

function source(name: string, ...versions: string[]): NatsSource {
  return {
    name,
    async *fetch(directory) {
      for (const version of versions) yield { program: writeProgram(join(directory, version), version), origin: name };
    },
  };
}

const failing: NatsSource = {
  name: "a blocked network",
  // biome-ignore lint/correctness/useYield: it has nothing to yield.
  async *fetch() {
    throw new TypeError("fetch failed", { cause: new Error("getaddrinfo ENOTFOUND example.invalid") });
  },
};

/** A PATH with a nats-server of the version, and one without any. */
const pathWith = (version: string) => `${join(writeProgram(temporaryDirectory(), version), "..")}:/usr/bin:/bin`;
const pathWithout = () => `${temporaryDirectory()}:/usr/bin:/bin`;

describe("findNatsServer", () => {
  it("takes the one on PATH", async () => {
    vi.stubEnv("PATH", pathWith("2.9.10"));
    const found = await findNatsServer({ sources: [] });
    expect(found).toMatchObject({ version: "2.9.10", origin: "PATH" });
  });

  it("passes over one on PATH that is older than 2.9", async () => {
    vi.stubEnv("PATH", pathWith("2.8.4"));
    expect(await findNatsServer({ sources: [source("a source", "2.14.5")] })).toMatchObject({ version: "2.14.5" });
  });

  it("keeps what it has fetched, and says where it came from when it takes it from the cache", async () => {
    vi.stubEnv("PATH", pathWithout());
    const fetched = await findNatsServer({ sources: [source("a source", "2.14.5")] });
    expect(fetched).toMatchObject({ version: "2.14.5", origin: "a source" });
    const found = await findNatsServer({ sources: [failing] });
    expect(found).toEqual({ ...fetched, origin: "cache (a source)" });
    expect(found.program.startsWith(cache)).toBe(true);
  });

  it("takes the newest one of the cache", async () => {
    vi.stubEnv("PATH", pathWithout());
    for (const version of ["2.9.25", "2.10.27", "2.9.3"]) {
      await fetchNatsServer({ sources: [source("a source", version)] });
    }
    expect(await findNatsServer({ sources: [] })).toMatchObject({ version: "2.10.27" });
  });

  it("fetches again what was damaged in the cache", async () => {
    vi.stubEnv("PATH", pathWithout());
    const { program } = await findNatsServer({ sources: [source("a source", "2.14.5")] });
    writeFileSync(program, "#!/bin/sh\necho nats-server: v2.14.5 # but not what was fetched\n");
    expect(await findNatsServer({ sources: [source("another source", "2.14.5")] })).toMatchObject({
      origin: "another source",
    });
    expect(await findNatsServer({ sources: [] })).toMatchObject({ origin: "cache (another source)" });
  });
});

describe("fetchNatsServer", () => {
  it("goes on to the next source where one fails, and to a source's next program where one does not run", async () => {
    const said: string[] = [];
    const sources = [failing, source("releases", "2.0.0", "2.10.27")];
    const fetched = await fetchNatsServer({ sources, onProgress: (message) => said.push(message) });
    expect(fetched).toMatchObject({ version: "2.10.27", origin: "releases" });
    expect(said).toEqual(["Fetching nats-server: a blocked network", "Fetching nats-server: releases"]);
  });

  it("names each way and why it failed, and what to do", async () => {
    await expect(fetchNatsServer({ sources: [failing, source("old releases", "2.8.0")] })).rejects.toMatchObject({
      code: "dev_server_failed",
      message:
        "No nats-server is on PATH or in the cache, and none could be fetched:\n" +
        "  - a blocked network: fetch failed (getaddrinfo ENOTFOUND example.invalid)\n" +
        "  - old releases: does not run on this machine\n" +
        "Install nats-server 2.9 or newer, or set HAWSER_NATS_URL to use a running one.",
    });
  });

  it("leaves one sound copy in the cache when many fetch at the same time", async () => {
    const fetching = Array.from({ length: 8 }, () => fetchNatsServer({ sources: [source("a source", "2.14.5")] }));
    const programs = new Set((await Promise.all(fetching)).map(({ program }) => program));
    expect(programs.size).toBe(1);
    expect(readdirSync(join(cache, "nats-server"))).toEqual([expect.stringMatching(/^2\.14\.5-/)]);
  });

  it("says which directory it could not write to", async () => {
    vi.stubEnv("HAWSER_CACHE_DIR", "/dev/null/cache");
    await expect(fetchNatsServer({ sources: [source("a source", "2.14.5")] })).rejects.toThrow(
      /could not be kept in \/dev\/null\/cache\/nats-server\. Set HAWSER_CACHE_DIR/,
    );
  });
});

describe("the official release", () => {
  const name = `nats-server-v${natsServerVersion}-${releasePlatform()}`;

  function archive(): Buffer {
    const directory = temporaryDirectory();
    writeProgram(join(directory, name), natsServerVersion);
    execFileSync("tar", ["-czf", join(directory, "archive.tar.gz"), "-C", directory, name]);
    return readFileSync(join(directory, "archive.tar.gz"));
  }

  async function site(listener: RequestListener, sha256: string, answerTimeoutMs = 20_000): Promise<NatsSource> {
    const server = createServer(listener).listen(0, "127.0.0.1");
    await new Promise((resolve) => server.once("listening", resolve));
    onTestFinished(() => {
      server.closeAllConnections();
      server.close();
    });
    const { port } = server.address() as AddressInfo;
    const checksums = { [releasePlatform()]: sha256 };
    return officialRelease({ url: `http://127.0.0.1:${port}/download`, checksums, answerTimeoutMs });
  }

  const sha256 = (bytes: Buffer) => createHash("sha256").update(bytes).digest("hex");

  it("is downloaded, verified and unpacked", async () => {
    const bytes = archive();
    const asked: (string | undefined)[] = [];
    const release = await site((request, response) => {
      asked.push(request.url);
      response.end(bytes);
    }, sha256(bytes));
    const fetched = await fetchNatsServer({ sources: [release] });
    expect(asked).toEqual([`/download/v${natsServerVersion}/${name}.tar.gz`]);
    expect(fetched).toMatchObject({ version: natsServerVersion, origin: expect.stringContaining(sha256(bytes)) });
  });

  it("is refused when its checksum is not the pinned one", async () => {
    const bytes = archive();
    const release = await site((_, response) => response.end(bytes), "0".repeat(64));
    await expect(fetchNatsServer({ sources: [release] })).rejects.toThrow(
      `${name}.tar.gz has SHA-256 ${sha256(bytes)}; expected ${"0".repeat(64)}`,
    );
  });

  it("is given up when the site refuses", async () => {
    const release = await site((_, response) => response.writeHead(404).end(), "0".repeat(64));
    await expect(fetchNatsServer({ sources: [release] })).rejects.toThrow("answers 404");
  });

  it("is given up soon when the site does not answer", async () => {
    const release = await site(() => undefined, "0".repeat(64), 200);
    await expect(fetchNatsServer({ sources: [release] })).rejects.toThrow("no answer in 200 ms");
  });

  it("is not tried where no checksum is pinned", async () => {
    const release = officialRelease({ url: "http://127.0.0.1:1", checksums: {}, answerTimeoutMs: 200 });
    await expect(fetchNatsServer({ sources: [release] })).rejects.toThrow(
      `no checksum is pinned for ${releasePlatform()}`,
    );
  });
});

describe("the other sources", () => {
  it("say what the machine lacks", async () => {
    vi.stubEnv("PATH", temporaryDirectory());
    await expect(fetchNatsServer({ sources: [debianPackage(), goInstall()] })).rejects.toThrow(
      /Debian package: this machine does not run Debian\n.*go install.*: no Go toolchain is on PATH/s,
    );
  });
});
