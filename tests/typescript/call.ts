// Calls a running server with a client whose types come from the server's own description.
import createClient from "openapi-fetch";
import type { components, paths } from "./schema.js";

declare const process: { argv: string[] };
declare const console: { log(text: string): void };

const client = createClient<paths>({ baseUrl: process.argv[2] ?? "" });

function answered<T>(told: { data?: T; error?: components["schemas"]["Problem"] }): T {
  if (told.data === undefined) throw new Error(told.error?.detail ?? "no answer");
  return told.data;
}

const row = { order_id: 7, total: "11", event_timestamp: new Date().toISOString() };
const pushed = answered(await client.POST("/v1/push", { body: { view: "orders", rows: [row] } }));
const read = answered(
  await client.POST("/v1/features", {
    body: { features: ["orders:total"], entities: { order_id: [7, 8] } },
  }),
);
const found = answered(
  await client.POST("/v1/search", { body: { query: "when are refunds paid", k: 2, mode: "text" } }),
);
const made = answered(await client.POST("/v1/context", { body: { query: "parking", user_id: "u1" } }));
const template = answered(
  await client.GET("/v1/templates/{id}", { params: { path: { id: "qa_basic" }, query: { version: "1.0.0" } } }),
);
const refused = await client.POST("/v1/features", { body: { features: ["orders:nothing"], entities: { order_id: [7] } } });

// Each of these has to be an error of the compiler, or the compiler says that it is none.
// @ts-expect-error a search has no such field
const unknown: components["schemas"]["SearchRequest"] = { query: "x", colour: "red" };
// @ts-expect-error there is no such mode
const mode: components["schemas"]["SearchRequest"] = { query: "x", mode: "magic" };
// @ts-expect-error a score is a number
const score: string | undefined = found.hits[0]?.score;
void [unknown, mode, score];

console.log(
  JSON.stringify({
    pushed: pushed.accepted,
    totals: read.columns["orders:total"],
    statuses: read.statuses["orders:total"],
    title: found.hits[0]?.title,
    template: made.template.id,
    tokens: made.n_tokens > 0,
    content: template.content_hash.length > 0,
    refused: refused.error?.type,
  }),
);
