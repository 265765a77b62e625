//! The camera's protocols against many players, over networks as bad as they come.
//!
//! `serve::Hub` runs as it does under its reactor; its sockets are smoltcp's. Every packet is held
//! against what the encoder made and what the players asked for.
//!
//! | file | concept |
//! |---|---|
//! | `world`, `truth` | the clock and everybody on it; what must hold |
//! | `camera`, `encoder` | the hub and its sockets; where pictures come from |
//! | `router`, `stack` | what happens to packets; one host's network |
//! | `player`, `client`, `dialogue` | a viewer: sockets, behaviour, language |
//! | `seeds`, `faults` | whole worlds from one number; what goes wrong in them |
//! | `planted` | bugs that have to be noticed |
//! | `tap`, `strict`, `reports` | judges: at the camera's cable, of media, of RTCP |

mod camera;
mod client;
mod dialogue;
mod encoder;
mod faults;
mod planted;
mod player;
mod reports;
mod router;
mod seeds;
mod stack;
mod strict;
mod tap;
mod truth;
mod watching;
mod world;
