// Streams one chat through the gateway and prints {"text", "chunks"}; errors as {"status", "code"}.
import OpenAI from "openai";

const [baseURL, apiKey, model] = process.argv.slice(2);
const client = new OpenAI({ baseURL, apiKey, maxRetries: 0 });
try {
  const stream = await client.chat.completions.create({
    model,
    stream: true,
    max_tokens: 16,
    messages: [{ role: "user", content: "Say hello." }],
  });
  let text = "";
  let chunks = 0;
  for await (const chunk of stream) {
    text += chunk.choices[0]?.delta?.content ?? "";
    chunks += 1;
    if (chunk.model !== model) throw new Error(`model came back as ${chunk.model}`);
  }
  console.log(JSON.stringify({ text, chunks }));
} catch (error) {
  if (!(error instanceof OpenAI.APIError)) throw error;
  console.log(JSON.stringify({ status: error.status, code: error.code }));
}
