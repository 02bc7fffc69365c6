/**
 * The vectors, read and written by frames.py and handshake.py, where there is a Python.
 */
import { spawnSync } from "node:child_process";
import { describe, expect, it } from "vitest";
import { projectDirectory } from "../support/program.js";
import { hasPython, pythonArguments } from "./peer/python-wire.js";

describe.runIf(hasPython())("Python", () => {
  it("finds that the vectors hold for frames and MACs written from the pages", () => {
    const vectors = `${projectDirectory}test/vectors`;
    const { status, stdout, stderr } = spawnSync("python3", pythonArguments("check_vectors.py", vectors), {
      encoding: "utf8",
    });
    expect({ status, stderr }).toEqual({ status: 0, stderr: "" });
    expect(stdout).toMatch(/^\d{3} vectors hold\n$/);
  });
});
