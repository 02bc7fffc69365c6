import { execFileSync } from "node:child_process";
import { existsSync, readFileSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { readSmallFile, readSmallFileSync } from "../../src/foundation/runtime/index.js";
import { temporaryDirectory } from "../support/temporary.js";

const maxBytes = 1000;

describe.each([
  ["at once", async (path: string) => readSmallFileSync(path, maxBytes)],
  ["in the background", (path: string) => readSmallFile(path, maxBytes)],
])("a small file, read %s", (_, read) => {
  it("is read whole up to the limit, also behind a symbolic link", async () => {
    const directory = temporaryDirectory();
    const path = join(directory, "file");
    const link = join(directory, "link");
    symlinkSync("file", link);
    for (const length of [0, 1, maxBytes]) {
      const content = Buffer.alloc(length, 7);
      writeFileSync(path, content);
      expect(await read(path)).toEqual(content);
      expect(await read(link)).toEqual(content);
    }
  });

  it("is refused with one byte too many", async () => {
    const path = join(temporaryDirectory(), "file");
    writeFileSync(path, Buffer.alloc(maxBytes + 1));
    await expect(read(path)).rejects.toThrow("it has more than 1000 bytes");
  });

  it.runIf(existsSync("/proc/self/smaps"))(
    "that says nothing of its size is read, and refused when it is too long",
    async () => {
      expect(await read("/proc/self/comm")).toEqual(readFileSync("/proc/self/comm"));
      await expect(read("/proc/self/smaps")).rejects.toThrow("it has more than 1000 bytes");
    },
  );

  it("is no directory, no device without an end, and no pipe that nobody writes to", async () => {
    const directory = temporaryDirectory();
    const pipe = join(directory, "pipe");
    execFileSync("mkfifo", [pipe]);
    for (const path of [directory, "/dev/zero", pipe]) {
      await expect(read(path)).rejects.toThrow("it is not a regular file");
    }
  });

  it("that is missing is told as the system tells it", async () => {
    await expect(read("/nowhere/file")).rejects.toThrow("ENOENT");
  });
});
