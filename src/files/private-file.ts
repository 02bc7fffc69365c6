/**
 * Files that nobody but their owner can read, such as logs and passwords.
 */
import { closeSync, fchmodSync, fchownSync, openSync, rmSync, writeFileSync } from "node:fs";

/** Writes a file in place of what has that name. @param owner default: the user of this process */
export function writePrivate(path: string, text: string, owner?: { readonly uid: number; readonly gid: number }): void {
  rmSync(path, { force: true });
  // Always a new file: one that is there keeps its mode, and a link leads elsewhere.
  const descriptor = openSync(path, "wx", 0o600);
  try {
    writeFileSync(descriptor, text);
    // By the descriptor: the owner of the directory may put something else in the file's place.
    fchmodSync(descriptor, 0o600);
    if (owner !== undefined) fchownSync(descriptor, owner.uid, owner.gid);
  } finally {
    closeSync(descriptor);
  }
}

/** Opens a file to append to, and makes it where it is missing. Also one that others could read is private from now on. */
export function openPrivate(path: string): number {
  const descriptor = openSync(path, "a", 0o600);
  try {
    fchmodSync(descriptor, 0o600);
  } catch (error) {
    closeSync(descriptor);
    throw error;
  }
  return descriptor;
}
