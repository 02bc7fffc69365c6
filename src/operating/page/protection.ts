/** Protection of the page: headers, hosts, other sites, the size of forms, and the number of answers at once. */
import type { Context, Hono, Next } from "hono";
import { bodyLimit } from "hono/body-limit";
import { secureHeaders } from "hono/secure-headers";
import { isEmbedded } from "./forms.js";
import { maxUnsentBytes, type UnsentAnswers } from "./unsent-answers.js";

/** The largest form that is read. */
const formBytes = 64 * 1024;
/** Maximum number of requests for which the page makes an answer at once; it refuses others. */
export const openRequests = 32;

/** Runs `work`, or refuses the request while `openRequests` are being answered: a queue of them would fill the memory. */
export type WithinLimit = <T>(c: Context, work: () => Promise<T>) => Promise<T | Response>;

/** Protects all routes that are added later. @returns the limit, which forms that change something apply by themselves */
export function protect(app: Hono, unsent: UnsentAnswers, hosts: readonly string[] | undefined): WithinLimit {
  const known = hosts?.map((host) => host.toLowerCase());
  app.use(
    secureHeaders({
      contentSecurityPolicy: {
        defaultSrc: ["'none'"],
        styleSrc: ["'self'"],
        scriptSrc: ["'self'"],
        connectSrc: ["'self'"],
        imgSrc: ["'self'"],
        formAction: ["'self'"],
        frameAncestors: ["'none'"],
        baseUri: ["'none'"],
      },
      xFrameOptions: "DENY",
      // With `no-referrer`, browsers would send forms with the origin `null`.
      referrerPolicy: "same-origin",
      strictTransportSecurity: false,
    }),
  );
  app.use(async (c, next) => {
    c.header("Cache-Control", "no-store");
    if (known !== undefined && !known.includes(new URL(c.req.url).hostname.toLowerCase())) {
      return c.text(
        "This host name is not one of the page's; address it by one, or name this one by --allow-host or the option hosts.\n",
        421,
      );
    }
    return next();
  });
  app.use(async (c, next) => {
    // Links of other sites lead here, but their pages cannot make Postgres work by loading this one in pieces.
    if (isEmbedded(c.req.raw)) return c.text("Other sites can link to this page, but not embed it.\n", 403);
    return c.req.method === "POST" ? next() : withinLimit(c, next as Next);
  });
  app.use(
    bodyLimit({ maxSize: formBytes, onError: (c) => c.text(`The form is longer than ${formBytes} bytes.\n`, 413) }),
  );

  let answering = 0;
  async function withinLimit<T>(c: Context, work: () => Promise<T>): Promise<T | Response> {
    if (unsent.isFull) return tooMuchUnsent();
    if (answering >= openRequests) {
      c.header("Retry-After", "1");
      return c.text(`The page is answering ${openRequests} requests already; load it again later.\n`, 503);
    }
    answering += 1;
    try {
      return await work();
    } finally {
      answering -= 1;
    }
  }
  return withinLimit;
}

/** Answer to a request while browsers leave too much of the page's answers unread. */
export function tooMuchUnsent(): Response {
  const text = `Browsers have not taken ${maxUnsentBytes / 1024 / 1024} MiB of the page's answers yet; load it again later.\n`;
  return new Response(text, { status: 503, headers: { "Cache-Control": "no-store", "Retry-After": "1" } });
}
