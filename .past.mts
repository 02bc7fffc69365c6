import { execSync } from "node:child_process";
import fs from "node:fs";
import path from "node:path";
import { importsOf } from "/work/main/scripts/layers/imports.js";

const files = execSync("git ls-files 'src/**.ts'").toString().trim().split("\n");
const c: Record<string, number> = {};
for (const f of files)
  for (const { specifier } of importsOf(f, fs.readFileSync(f, "utf8"))) {
    if (!specifier.startsWith(".")) continue;
    const to = path.posix.join(path.posix.dirname(f), specifier).replace(/\.js$/, ".ts");
    if (!to.startsWith("src/")) continue;
    // the outermost folder of `to` that doesn't contain f, must have index
    const parts = to.split("/");
    for (let i = 2; i < parts.length; i++) {
      const folder = parts.slice(0, i).join("/");
      if (f.startsWith(folder + "/")) continue;
      const idx = folder + "/index.ts";
      if (to !== idx) {
        const k = `${f
          .split("/")
          .slice(1, 3)
          .slice(0, f.split("/").length > 3 ? 2 : 1)
          .join("/")} -> ${to}${fs.existsSync(idx) ? "" : " (no index)"}`;
        c[k] = (c[k] ?? 0) + 1;
      }
      break;
    }
  }
for (const [k, v] of Object.entries(c).sort()) console.log(v, k);
