/** Files that only their owner can read, such as logs and passwords. */
import { closeSync, fchmodSync, fchownSync, openSync, rmSync, writeFileSync } from "node:fs";

/** Writes a file, replacing an existing one. @param owner default: the user of this process */
export function writePrivate(path: string, text: string, owner?: { readonly uid: number; readonly gid: number }): void {
  rmSync(path, { force: true });
  // Always a new file: an existing one would keep its mode, and a link would lead elsewhere.
  const descriptor = openSync(path, "wx", 0o600);
  try {
    writeFileSync(descriptor, text);
    // By the descriptor, because the owner of the directory may replace the file.
    fchmodSync(descriptor, 0o600);
    if (owner !== undefined) fchownSync(descriptor, owner.uid, owner.gid);
  } finally {
    closeSync(descriptor);
  }
}

/** Opens a file for appending, creating it if necessary, and removes the permissions of others. */
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
