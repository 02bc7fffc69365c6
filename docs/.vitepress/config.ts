/** Site of the documentation, which `npm run docs` builds from the pages that GitHub shows. */
import { dirname, join, posix, relative } from "node:path";
import { fileURLToPath } from "node:url";
import { type DefaultTheme, defineConfig, type MarkdownOptions } from "vitepress";
import { demoFolder, demoProgram, outputFolder, pageAt, readPages } from "../../scripts/docs/pages.js";
import { readHome } from "../../scripts/home.js";

const root = fileURLToPath(new URL("../..", import.meta.url));
const home = readHome().url;
const { groups, paths, others } = readPages(root);

/** Address on the site of a link in a page: of a page of the site, else of the file in the repository. */
function addressOf(target: string, page: string): string {
  if (/^([a-z]+:|#|\/)/.test(target)) return target;
  const [path = "", anchor] = target.split("#");
  const file = posix.join(dirname(page), path);
  const onSite = paths.get(pageAt(file));
  const address = onSite === undefined ? `${home}/blob/HEAD/${file}` : `/${onSite}`;
  return anchor === undefined ? address : `${address}#${anchor}`;
}

const markdown: MarkdownOptions = {
  // The colours of the default themes are too faint for comments.
  theme: { light: "github-light-high-contrast", dark: "github-dark-high-contrast" },
  // Braces in texts are no attributes.
  attrs: { disable: true },
  anchor: {
    // The anchors of GitHub.
    slugify: (heading) =>
      heading
        .toLowerCase()
        .replace(/[^\p{L}\p{N}_ -]/gu, "")
        .replaceAll(" ", "-"),
  },
  config(md) {
    md.disable("emoji");
    md.core.ruler.push("addresses", ({ tokens, env }) => {
      const page = relative(root, env.realPath ?? env.path);
      for (const [index, { type, content }] of tokens.entries()) {
        // An empty cell in the head of a table is no heading.
        const cell = tokens.slice(index - 1, index + 2);
        if (type === "inline" && content === "" && cell[0]?.type === "th_open")
          for (const each of cell) each.tag = "td";
      }
      for (const token of tokens.flatMap((each) => [each, ...(each.children ?? [])])) {
        const target = token.attrGet("href");
        if (token.type === "link_open" && target !== null && posix.join(dirname(page), target) === demoProgram) {
          const depth = (paths.get(page) ?? "").split("/").length - 1;
          token.attrSet("href", `${"../".repeat(depth)}${demoFolder}/index.html`);
          // The router of the site knows its own pages only.
          token.attrSet("target", "_self");
        } else if (token.type === "link_open" && target !== null) token.attrSet("href", addressOf(target, page));
        // The theme lays out fences only.
        if (token.type === "code_block") token.type = "fence";
        // The bundler takes only such paths for those of files.
        if (token.type === "html_block") token.content = token.content.replace(/(src|srcset)="(?=\w+\/)/g, '$1="./');
      }
    });
  },
};

const search: DefaultTheme.LocalSearchOptions = {
  // These functions run in the browser, by their text.
  miniSearch: {
    searchOptions: {
      processTerm: (term) =>
        /^(an?|and|at|by|do|does|for|from|how|i|in|is|my|not|of|on|or|the|to|with)$/i.test(term)
          ? null
          : term.toLowerCase(),
      // Guides before what they are made of.
      boostDocument: (id: string) =>
        /\/(api|reference|decisions|benchmarks|changelog|contents|contributing)\b/.test(id) ? 0.5 : 1,
    },
  },
};

/** Without a colour that is faint, and without names of keys, which are no part of the name of their button. */
const style = `
:root { --vp-code-lang-color: var(--vp-c-text-2); }
.DocSearch-Button-Keys { display: none !important; }`;

export default defineConfig({
  title: "Hawser",
  description: "Messages between TypeScript services with the Postgres you already run",
  srcDir: root,
  srcExclude: others,
  outDir: join(root, outputFolder, "site"),
  cacheDir: join(root, outputFolder, "cache"),
  rewrites: Object.fromEntries(paths),
  markdown,
  // One chunk is the index of the search.
  vite: { build: { chunkSizeWarningLimit: 2_000 } },
  head: [["style", {}, style]],
  themeConfig: {
    nav: [
      { text: "Guides", link: "/getting-started" },
      { text: "Reference", link: "/reference/settings" },
      { text: "All pages", link: "/contents" },
    ],
    sidebar: groups.map(({ text, links }) => ({
      text,
      items: links.map(({ text, page }) => ({ text, link: `/${paths.get(page)}` })),
    })),
    outline: [2, 3],
    socialLinks: [{ icon: "github", link: home }],
    search: { provider: "local", options: search },
  },
});
