import { findProgram } from "../../../src/development/dev/server-process.js";

/** The path of a program of the system. @throws when it is not installed */
export function systemProgram(name: string): string {
  const path = findProgram(name);
  if (path === undefined) throw new Error(`${name} is not installed, and this test needs it`);
  return path;
}
