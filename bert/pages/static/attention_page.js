// The page of `bert attention`.
"use strict";

mountAttention(document.getElementById("attention"), pageData());
