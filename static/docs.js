// Starts Swagger UI on the document that the page names.
"use strict";
window.addEventListener("DOMContentLoaded", () => {
  const holder = document.getElementById("swagger");
  window.SwaggerUIBundle({ url: holder.dataset.url, domNode: holder, deepLinking: true, validatorUrl: null });
});
