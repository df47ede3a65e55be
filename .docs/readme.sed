# README.md as a page: another title, and no links into the repository, which lead nowhere from there.
1s/.*/# Overview {#overview}/
s/(^|[^!])\[([^]]*)\]\((examples|LICENSE|tests)[^)]*\)/\1\2/g
