/** Recording of the operator's page: its answers as files of a static site, whose links lead to each other, and whose forms do nothing. */

/** Most pages with one path; digits in it count as equal. Lists have many orders, and some rows look like others. */
const mostOfPath = 8;
/** Most pages of a recording. */
const mostPages = 160;

const notice =
  '<p class="banner" role="note">This is a recording of a busy system: buttons, fields and some links do nothing. Its last day is made up.</p>';

/** Answers a request for a path with its query. */
type Ask = (path: string) => Promise<Response>;

/**
 * Records the overview and all that it leads to, by and by.
 *
 * @returns contents by the names of files, beginning with `index.html`
 */
export async function recordPages(ask: Ask): Promise<Map<string, string>> {
  const pages = new Map<string, string>();
  const seen = new Set(["/"]);
  const ofPath = new Map<string, number>();
  const waiting = ["/"];
  for (let path = waiting.shift(); path !== undefined && pages.size < mostPages; path = waiting.shift()) {
    const response = await ask(path);
    const isPage = response.status === 200 && response.headers.get("content-type")?.startsWith("text/html");
    const text = await response.text();
    if (!isPage) continue;
    pages.set(path, text);
    for (const [, target] of linksIn(text)) {
      const kind = target!.split("?")[0]!.replace(/\d+/g, "0");
      const count = ofPath.get(kind) ?? 0;
      if (seen.has(target!) || !target!.startsWith("/") || target!.includes("paused=") || count >= mostOfPath) continue;
      seen.add(target!);
      ofPath.set(kind, count + 1);
      waiting.push(target!);
    }
  }
  const names = namesOf([...pages.keys()]);
  const files = [...pages].map(([path, text]) => [names.get(path)!, staticPage(text, names)] as const);
  const assets = await Promise.all(
    ["style.css", "icon.svg"].map(async (name) => [name, await (await ask(`/${name}`)).text()] as const),
  );
  return new Map([...files, ...assets]);
}

/** Links of a page: each with its address, without what is behind `#`, and that. */
function linksIn(text: string): (readonly [whole: string, target: string | undefined, hash: string])[] {
  return [...text.matchAll(/<a\b[^>]*? href="([^"#]*)(#[^"]*)?"/g)].map(([whole, target, hash]) => [
    whole,
    target?.replaceAll("&amp;", "&"),
    hash ?? "",
  ]);
}

/** Names of files, which say what is in each. */
function namesOf(paths: readonly string[]): Map<string, string> {
  const taken = new Set<string>();
  return new Map(
    paths.map((path) => {
      const words = decodeURIComponent(path)
        .toLowerCase()
        .replace(/[^a-z0-9]+/g, "-")
        .slice(0, 60);
      const base = words.replace(/^-|-$/g, "") || "index";
      let name = base;
      for (let nth = 2; taken.has(name); nth++) name = `${base}-${nth}`;
      taken.add(name);
      return [path, `${name}.html`];
    }),
  );
}

/** Page whose links lead to files, without scripts, tokens and what sends forms. */
function staticPage(text: string, names: ReadonlyMap<string, string>): string {
  const linked = text.replace(
    /(<a\b[^>]*?) href="([^"#]*)(#[^"]*)?"/g,
    (whole, before: string, target: string, hash = "") => {
      if (target === "") return whole;
      const file = names.get(target.replaceAll("&amp;", "&"));
      return file === undefined ? `${before} title="This is not recorded"` : `${before} href="${file}${hash}"`;
    },
  );
  return linked
    .replace(/<script\b.*?<\/script>\s*/gs, "")
    .replace(/<noscript>.*?<\/noscript>\s*/gs, "")
    .replace(/<p>This page (reloads|does not reload).*?<\/p>/gs, "")
    .replace(/<body[^>]*>/, "<body>")
    .replace(/<link rel="(stylesheet|icon)" href="\//g, '<link rel="$1" href="')
    .replace(/<input type="hidden"[^>]*>/g, "")
    .replace(/<form\b[^>]*?( aria-label="[^"]*")?>/g, "<form$1>")
    .replace(/<(button|input|select|textarea)\b/g, "<$1 disabled")
    .replace(/<main\b[^>]*>/, (main) => `${main}\n${notice}`);
}
