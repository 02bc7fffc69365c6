import { execFileSync } from "node:child_process";
import { mkdirSync, renameSync, rmSync, symlinkSync, unlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import type { HawserError } from "../../src/foundation/errors/index.js";
import { maxSecretFileBytes, SecretFiles } from "../../src/nats/connections/secret-files.js";
import { atDepth } from "../support/depth.js";
import { eventually } from "../support/eventually.js";
import { temporaryDirectory } from "../support/temporary.js";

const never = new AbortController().signal;

/** A directory `secrets` that may be read, a directory `outside` that may not, and a reader. */
function world() {
  const directory = temporaryDirectory();
  const secrets = join(directory, "secrets");
  const outside = join(directory, "outside");
  mkdirSync(secrets);
  mkdirSync(outside);
  writeFileSync(join(outside, "shadow"), "hashes");
  const files = new SecretFiles([secrets]);
  return {
    directory,
    secrets,
    outside,
    read: (path: string) => files.readSecret("token_path", path, never),
    refusal: async (path: string) => {
      const error = await files.readSecret("token_path", path, never).then(
        () => undefined,
        (reason: HawserError) => reason,
      );
      expect(error?.code).toBe("secret_file");
      // Node's own error has the path in it.
      expect(error?.cause).toBeUndefined();
      return error?.message;
    },
  };
}

describe("a file in the directory", () => {
  it("is read again each time, without the white space around it", async () => {
    const { secrets, read } = world();
    const path = join(secrets, "token");
    writeFileSync(path, "\n\t two words \r\n\n");
    expect(await read(path)).toBe("two words");
    writeFileSync(path, "new");
    expect(await read(path)).toBe("new");
  });

  it("is read below it, through a path that leaves it and comes back, and through links inside, as Kubernetes makes them", async () => {
    const { secrets, read } = world();
    mkdirSync(join(secrets, "..2026_11_20"));
    writeFileSync(join(secrets, "..2026_11_20", "token"), "right");
    symlinkSync("..2026_11_20", join(secrets, "..data"));
    symlinkSync("..data/token", join(secrets, "token"));
    for (const path of ["token", "..data/token", "../secrets/..2026_11_20/token"]) {
      expect(await read(`${secrets}/${path}`), path).toBe("right");
    }
  });

  it("is read from any of several directories, of which some are missing, and others are links themselves", async () => {
    const { directory, secrets } = world();
    const link = join(directory, "run-secrets");
    writeFileSync(join(secrets, "token"), "right");
    symlinkSync(secrets, link);
    const files = new SecretFiles([join(directory, "missing"), link]);
    for (const path of [join(link, "token"), join(secrets, "token")]) {
      expect(await files.readSecret("token_path", path, never), path).toBe("right");
    }
  });

  it("is read while it is replaced again and again", async () => {
    const { secrets, read } = world();
    const turn = (content: string): void => {
      mkdirSync(join(secrets, content));
      writeFileSync(join(secrets, content, "token"), content);
      symlinkSync(content, join(secrets, "..new"));
      renameSync(join(secrets, "..new"), join(secrets, "..data"));
    };
    turn("0");
    symlinkSync("..data/token", join(secrets, "token"));
    const rounds = atDepth(100);
    for (let round = 1; round <= rounds; round++) {
      const reading = read(join(secrets, "token"));
      await new Promise((resolve) => setImmediate(resolve));
      turn(`${round}`);
      rmSync(join(secrets, `${round - 1}`), { recursive: true });
      expect([`${round - 1}`, `${round}`]).toContain(await reading);
    }
  });

  const pem = "-----BEGIN PRIVATE KEY-----\ntop-secret\n-----END PRIVATE KEY-----\n";
  const holding = (content: string | Uint8Array) => (path: string) => writeFileSync(path, content);

  it.each<readonly [what: string, make: (path: string) => unknown, words: string]>([
    ["is missing", () => undefined, "the file does not exist in its directory"],
    ["is empty", holding(""), "the file is empty"],
    ["is blank", holding(" \n"), "contains only white space"],
    ["is not UTF-8", holding(Uint8Array.of(0xff, 0xfe)), "is not UTF-8"],
    ["has several lines", holding("PASSWORD=top-secret\nUSER=me\n"), "a secret is one line without NUL"],
    ["has NUL within", holding("top-secret\0more"), "a secret is one line without NUL"],
    ["is PEM", holding(pem), "the file contains a PEM key or certificate"],
    ["is a directory", (path) => mkdirSync(path), "it is not a regular file"],
    ["is a pipe", (path) => execFileSync("mkfifo", [path]), "it is not a regular file"],
    ["is too big", holding(new Uint8Array(maxSecretFileBytes + 1)), `it has more than ${maxSecretFileBytes} bytes`],
  ])("is refused if it %s", async (_, make, words) => {
    const { secrets, refusal } = world();
    const path = join(secrets, "token");
    make(path);
    const message = await refusal(path);
    expect(message).toContain(words);
    expect(message).not.toContain(path);
    expect(message).not.toContain("top-secret");
  });
});

describe("a file outside", () => {
  it("is refused with the same error whether it exists or not, and whether anyone could read it", async () => {
    const { secrets, outside, refusal } = world();
    symlinkSync(outside, join(secrets, "way-out"));
    symlinkSync(join(outside, "shadow"), join(secrets, "link-out"));
    symlinkSync(join(outside, "missing"), join(secrets, "link-to-nothing"));
    symlinkSync("../outside/shadow", join(secrets, "relative-link-out"));
    symlinkSync("loop", join(secrets, "loop"));
    const paths = [
      join(outside, "shadow"),
      join(outside, "missing"),
      join(outside, "missing", "deeper"),
      join(outside, "shadow", "no-directory"),
      `${secrets}/../outside/shadow`,
      `${secrets}/../outside/missing`,
      join(secrets, "way-out", "shadow"),
      join(secrets, "way-out", "missing"),
      join(secrets, "link-out"),
      join(secrets, "link-to-nothing"),
      join(secrets, "relative-link-out"),
      join(secrets, "loop"),
      `${secrets}-too/token`,
      "/etc/passwd",
      "/dev/zero",
      "/",
      "relative/token",
      "token",
    ];
    const refusals = await Promise.all(paths.map(refusal));
    expect(new Set(refusals)).toEqual(
      new Set([
        `the file of option "token_path" cannot be used: it names no file in the directories from which files may be read: ${secrets}`,
      ]),
    );
  });

  it("is refused whatever it is if no directory is allowed", async () => {
    const { outside } = world();
    const files = new SecretFiles([]);
    await expect(files.readSecret("tls_key_path", join(outside, "shadow"), never)).rejects.toThrow(
      'the file of option "tls_key_path" cannot be used: it names no file in the directories from which files may be read: none are permitted',
    );
  });

  it.runIf(process.platform === "linux")(
    "is not read through a directory that is exchanged for a link outside",
    async () => {
      const { secrets, outside, read } = world();
      const [inside, away] = [join(secrets, "nats"), join(secrets, "nats-away")];
      mkdirSync(inside);
      writeFileSync(join(inside, "shadow"), "mine");
      let exchanging = true;
      const tick = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));
      const exchange = (async () => {
        while (exchanging) {
          renameSync(inside, away);
          symlinkSync(outside, inside);
          await tick();
          unlinkSync(inside);
          renameSync(away, inside);
          await tick();
        }
      })();
      const outcomes = new Set<string>();
      let reads = 0;
      const isEnough = async () => {
        const all = Array.from({ length: 100 }, () =>
          read(join(inside, "shadow")).catch((error: HawserError) => error.code),
        );
        for (const outcome of await Promise.all(all)) outcomes.add(outcome);
        reads += all.length;
        return reads >= atDepth(1000) && outcomes.size >= 2;
      };
      try {
        await eventually("the file was read and refused, and asked for often", isEnough, 150_000);
      } finally {
        exchanging = false;
        await exchange;
      }
      expect(outcomes).toEqual(new Set(["mine", "secret_file"]));
    },
  );
});

it("stops waiting for a file when it is told to, and reads the next one after it", async () => {
  const { secrets } = world();
  writeFileSync(join(secrets, "token"), "right");
  const files = new SecretFiles([secrets]);
  const aborted = AbortSignal.abort(new Error("enough"));
  await expect(files.readSecret("token_path", join(secrets, "token"), aborted)).rejects.toThrow("enough");
  expect(await files.readSecret("token_path", join(secrets, "token"), never)).toBe("right");
});
