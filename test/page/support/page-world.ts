/** A page over a database of the test's own, asked by requests as a browser sends them. */

import type { Clock } from "../../../src/foundation/runtime/index.js";
import { silentLogger, systemClock } from "../../../src/foundation/runtime/index.js";
import type { PageOptions } from "../../../src/operating/page/index.js";
import { createPage } from "../../../src/operating/page/page.js";
import { type Login, login } from "../../installation/support/logins.js";

export const origin = "http://127.0.0.1:9470";

/** Client of a page. */
export interface PageClient extends AsyncDisposable {
  readonly handler: (request: Request) => Promise<Response>;
  /** Status and text of a page, without what is only for narrow screens and long names. */
  get(path: string): Promise<{ readonly status: number; readonly text: string; readonly headers: Headers }>;
  /** Submits the form of a page whose button has this text. */
  submit(
    path: string,
    button: string,
  ): Promise<{ readonly status: number; readonly text: string; readonly headers: Headers }>;
}

/** Makes a page and its client. */
export function pageClient(options: PageOptions, clock: Clock = systemClock): PageClient {
  const handler = createPage({ logger: silentLogger, ...options }, clock);
  const ask = async (request: Request) => {
    const response = await handler(request);
    const text = (await response.text()).replace(
      /<wbr>| role="(table|rowgroup|row|columnheader|cell)"| data-head="[^"]*"/g,
      "",
    );
    return { status: response.status, text, headers: response.headers };
  };
  const get = (path: string) => ask(new Request(`${origin}${path}`));
  return {
    handler,
    get,
    async submit(path, button) {
      const form = formOf((await get(path)).text, button);
      return ask(
        new Request(`${origin}${form.action}`, {
          method: "POST",
          body: new URLSearchParams(form.fields),
          headers: { "sec-fetch-site": "same-origin", origin },
        }),
      );
    },
    [Symbol.asyncDispose]: () => handler.close(),
  };
}

/** Makes a login that sees counts, names and ages only. */
export async function viewerOf(databaseUrl: string): Promise<Login & AsyncDisposable> {
  return login(databaseUrl, "IN ROLE hawser_viewer");
}

/** Action and hidden fields of the form with a button whose text begins like this. */
export function formOf(
  text: string,
  button: string,
): { readonly action: string; readonly fields: Record<string, string> } {
  const forms = [...text.matchAll(/<form[^>]*method="post"[^>]*action="([^"]*)"[^>]*>(.*?)<\/form>/gs)];
  const form = forms.find(([, , body]) => /<button[^>]*>(.*?)<\/button>/s.exec(body ?? "")?.[1]?.startsWith(button));
  if (form === undefined) throw new Error(`no form has a button "${button}"`);
  const fields = [...form[2]!.matchAll(/<input type="hidden" name="([^"]*)" value="([^"]*)">/g)];
  return { action: form[1]!, fields: Object.fromEntries(fields.map(([, name, value]) => [name, unescaped(value!)])) };
}

function unescaped(text: string): string {
  const entities: Readonly<Record<string, string>> = {
    "&amp;": "&",
    "&lt;": "<",
    "&gt;": ">",
    "&quot;": '"',
    "&#39;": "'",
  };
  return text.replace(/&(amp|lt|gt|quot|#39);/g, (entity) => entities[entity]!);
}
