//! The Noise handshake of a link: `Noise_XXpsk0_25519_ChaChaPoly_BLAKE2s` (Noise revision 34; `docs/protocol.md`).

use alloc::{boxed::Box, vec, vec::Vec};

use grange_wire::{HANDSHAKE_MAX, LinkIndex};
use snow::{
    Builder, HandshakeState, StatelessTransportState,
    params::{CipherChoice, DHChoice, HashChoice, NoiseParams},
    resolvers::{CryptoResolver, DefaultResolver},
    types::{Cipher, Dh, Hash, Random as SnowRandom},
};
use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::{Zeroize, Zeroizing};

use super::Random;
use crate::{DataKeys, Identity, offer::Agreement};

const PATTERN: &str = "Noise_XXpsk0_25519_ChaChaPoly_BLAKE2s";
const PROLOGUE: &[u8] = b"grange v1";

/// What every handshake of a node in one town shares.
pub(crate) struct NoiseContext {
    params: NoiseParams,
    private: Zeroizing<[u8; 32]>,
    public: [u8; 32],
    psk: Zeroizing<[u8; 32]>,
}

impl NoiseContext {
    pub(crate) fn new(identity: &Identity, town_key: &[u8; 32]) -> Self {
        #[expect(clippy::expect_used, reason = "a constant that every handshake test parses")]
        let params = PATTERN.parse().expect("a Noise pattern");
        Self {
            params,
            private: identity.link_private(),
            public: identity.link_public(),
            psk: Zeroizing::new(*town_key),
        }
    }

    fn builder(&self, seed: &Zeroizing<[u8; 32]>) -> Result<Builder<'_>, snow::Error> {
        let resolver = Resolver { seed: seed.clone(), public: self.public };
        Builder::with_resolver(self.params.clone(), Box::new(resolver))
            .prologue(PROLOGUE)?
            .local_private_key(&*self.private)?
            .psk(0, &self.psk)
    }

    /// A handshake that we begin.
    pub(crate) fn initiate(&self, random: &mut Random) -> Result<Handshake, snow::Error> {
        let seed = Zeroizing::new(random.bytes());
        Ok(Handshake { state: self.builder(&seed)?.build_initiator()?, answer: None })
    }

    /// A handshake that a neighbour began. Costs no Diffie-Hellman before message 1 was read.
    pub(crate) fn respond(&self, random: &mut Random) -> Result<Handshake, snow::Error> {
        let answer = Answer { seed: Zeroizing::new(random.bytes()), first: Vec::new(), payload: Vec::new() };
        Ok(Handshake { state: self.builder(&answer.seed)?.build_responder()?, answer: Some(answer) })
    }

    /// Takes back a forged message 3 that only failed behind its static key. snow puts back the hashes then but not the
    /// cipher's key, so the genuine message would fail too: the handshake is made again as it was after message 2. Costs what
    /// the answer did.
    pub(crate) fn take_back(&self, handshake: &mut Handshake) -> Result<(), snow::Error> {
        let Some(Answer { seed, first, payload }) = &handshake.answer else { return Ok(()) };
        if handshake.state.get_remote_static().is_none() {
            return Ok(());
        }
        let mut state = self.builder(seed)?.build_responder()?;
        let mut scratch = vec![0; HANDSHAKE_MAX];
        state.read_message(first, &mut scratch)?;
        state.write_message(payload, &mut scratch)?;
        handshake.state = state;
        Ok(())
    }
}

/// What makes a responder's answer again.
struct Answer {
    seed: Zeroizing<[u8; 32]>,
    /// Message 1.
    first: Vec<u8>,
    /// The payload of message 2.
    payload: Vec<u8>,
}

/// A running handshake.
pub(crate) struct Handshake {
    state: HandshakeState,
    /// Of the responder.
    answer: Option<Answer>,
}

/// Which messages a handshake has left; see [`Handshake::read`] and [`Handshake::write`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Our message is next.
    Write,
    /// The neighbour's is next.
    Read,
    /// Done.
    Finished,
}

/// What a finished handshake leaves.
pub(crate) struct Established {
    /// Seals and opens control frames.
    pub(crate) transport: StatelessTransportState,
    /// For the plane.
    pub(crate) keys: DataKeys,
}

impl Handshake {
    pub(crate) fn phase(&self) -> Phase {
        if self.state.is_handshake_finished() {
            Phase::Finished
        } else if self.state.is_my_turn() {
            Phase::Write
        } else {
            Phase::Read
        }
    }

    /// Appends the next Noise message with `payload` to a datagram's `head`.
    pub(crate) fn write(&mut self, head: &[u8], payload: &[u8]) -> Result<Vec<u8>, snow::Error> {
        let mut datagram = vec![0; HANDSHAKE_MAX];
        datagram[..head.len()].copy_from_slice(head);
        let len = self.state.write_message(payload, &mut datagram[head.len()..])?;
        if let Some(answer) = &mut self.answer {
            answer.payload = payload.to_vec();
        }
        datagram.truncate(head.len() + len);
        Ok(datagram)
    }

    /// Reads the neighbour's next message and gives its payload. After an error the handshake stands as before, but see
    /// [`NoiseContext::take_back`].
    pub(crate) fn read(&mut self, message: &[u8]) -> Result<Vec<u8>, snow::Error> {
        // snow's cipher writes the plaintext and its checks ask for room for it only.
        let mut payload = vec![0; message.len()];
        let len = self.state.read_message(message, &mut payload)?;
        payload.truncate(len);
        if let Some(answer) = self.answer.as_mut().filter(|answer| answer.first.is_empty()) {
            answer.first = message.to_vec();
        }
        Ok(payload)
    }

    /// The neighbour's static key, once its message with it was read.
    pub(crate) fn remote_static(&self) -> Option<[u8; 32]> {
        self.state.get_remote_static()?.try_into().ok()
    }

    /// The session's keys. The data keys follow from the split of the same handshake by BLAKE3 key derivation with a
    /// context for each direction, the handshake hash and what was agreed on, so that control and data share no key,
    /// nor do ends that took the other's offer for another one.
    pub(crate) fn establish(
        mut self,
        (local, remote): (LinkIndex, LinkIndex),
        agreed: Agreement,
    ) -> Result<Established, snow::Error> {
        let initiator = self.state.is_initiator();
        let (mut first, mut second) = self.state.dangerously_get_raw_split();
        let hash = self.state.get_handshake_hash();
        let from_initiator = derive("grange v1 data, initiator to responder", &first, hash, agreed);
        let from_responder = derive("grange v1 data, responder to initiator", &second, hash, agreed);
        first.zeroize();
        second.zeroize();
        let (seal, open) = if initiator { (from_initiator, from_responder) } else { (from_responder, from_initiator) };
        let keys = DataKeys { cipher: agreed.cipher, local, remote, seal: *seal, open: *open };
        Ok(Established { transport: self.state.into_stateless_transport_mode()?, keys })
    }
}

fn derive(context: &str, split: &[u8; 32], hash: &[u8], agreed: Agreement) -> Zeroizing<[u8; 32]> {
    let mut hasher = blake3::Hasher::new_derive_key(context);
    hasher.update(split);
    hasher.update(hash);
    hasher.update(&[agreed.byte()]);
    Zeroizing::new(*hasher.finalize().as_bytes())
}

/// Hash and cipher from snow; random numbers from the node's generator; Diffie-Hellman of our own.
struct Resolver {
    seed: Zeroizing<[u8; 32]>,
    public: [u8; 32],
}

impl CryptoResolver for Resolver {
    fn resolve_rng(&self) -> Option<Box<dyn SnowRandom>> {
        Some(Box::new(Random::new(*self.seed)))
    }

    fn resolve_dh(&self, choice: &DHChoice) -> Option<Box<dyn Dh>> {
        match choice {
            DHChoice::Curve25519 => {
                Some(Box::new(X25519 { private: None, public: self.public, own_public: self.public }))
            }
            _ => None,
        }
    }

    fn resolve_hash(&self, choice: &HashChoice) -> Option<Box<dyn Hash>> {
        DefaultResolver.resolve_hash(choice)
    }

    fn resolve_cipher(&self, choice: &CipherChoice) -> Option<Box<dyn Cipher>> {
        DefaultResolver.resolve_cipher(choice)
    }
}

/// X25519 that erases its private keys, refuses shared secrets to which the neighbour did not contribute, and does not
/// compute our static public key anew for each initiation that comes in: that would be the Diffie-Hellman work that a
/// flood is meant to cause.
struct X25519 {
    private: Option<StaticSecret>,
    public: [u8; 32],
    own_public: [u8; 32],
}

impl Dh for X25519 {
    fn name(&self) -> &'static str {
        "25519"
    }

    fn pub_len(&self) -> usize {
        32
    }

    fn priv_len(&self) -> usize {
        32
    }

    /// Only the static key is ever set.
    fn set(&mut self, private: &[u8]) {
        if let Ok(private) = <[u8; 32]>::try_from(private) {
            let private = Zeroizing::new(private);
            self.private = Some(StaticSecret::from(*private));
            self.public = self.own_public;
        }
    }

    fn generate(&mut self, random: &mut dyn SnowRandom) -> Result<(), snow::Error> {
        let mut bytes = Zeroizing::new([0; 32]);
        random.try_fill_bytes(&mut *bytes)?;
        let private = StaticSecret::from(*bytes);
        self.public = PublicKey::from(&private).to_bytes();
        self.private = Some(private);
        Ok(())
    }

    fn pubkey(&self) -> &[u8] {
        &self.public
    }

    fn privkey(&self) -> &[u8] {
        self.private.as_ref().map_or(&[], |private| private.as_ref())
    }

    fn dh(&self, public: &[u8], out: &mut [u8]) -> Result<(), snow::Error> {
        let public: [u8; 32] = public.get(..32).and_then(|key| key.try_into().ok()).ok_or(snow::Error::Dh)?;
        let private = self.private.as_ref().ok_or(snow::Error::Dh)?;
        let shared = private.diffie_hellman(&PublicKey::from(public));
        if !shared.was_contributory() {
            return Err(snow::Error::Dh);
        }
        out.get_mut(..32).ok_or(snow::Error::Dh)?.copy_from_slice(shared.as_bytes());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AGREED: Agreement = Agreement { cipher: crate::Cipher::ChaCha20Poly1305, kernel: false };
    const X: LinkIndex = LinkIndex(1);
    const Y: LinkIndex = LinkIndex(2);

    fn context(seed: u8, key: u8) -> (NoiseContext, Identity) {
        let identity = Identity::from_seed(&[seed; 32]);
        (NoiseContext::new(&identity, &[key; 32]), identity)
    }

    #[test]
    fn both_ends_get_the_same_keys_and_know_each_other() {
        let ((a, alice), (b, bob)) = (context(1, 9), context(2, 9));
        let (mut ra, mut rb) = (Random::new([1; 32]), Random::new([2; 32]));
        let (mut i, mut r) = (a.initiate(&mut ra).unwrap(), b.respond(&mut rb).unwrap());
        let one = i.write(&[0; 8], b"nonce").unwrap();
        assert_eq!(r.read(&one[8..]).unwrap(), b"nonce");
        let two = r.write(&[0; 12], b"two").unwrap();
        assert_eq!(i.read(&two[12..]).unwrap(), b"two");
        let three = i.write(&[0; 8], b"three").unwrap();
        assert_eq!(i.phase(), Phase::Finished);
        assert_eq!(r.read(&three[8..]).unwrap(), b"three");
        assert_eq!(i.remote_static(), Some(bob.link_public()));
        assert_eq!(r.remote_static(), Some(alice.link_public()));
        let (i, r) = (i.establish((X, Y), AGREED).unwrap(), r.establish((Y, X), AGREED).unwrap());
        assert_eq!((i.keys.seal, i.keys.open), (r.keys.open, r.keys.seal));
        assert_ne!(i.keys.seal, i.keys.open);
        let mut sealed = [0; 20];
        let len = i.transport.write_message(7, b"abcd", &mut sealed).unwrap();
        let mut opened = [0; 20];
        assert_eq!(r.transport.read_message(7, &sealed[..len], &mut opened), Ok(4));
        assert_eq!(&opened[..4], b"abcd");
    }

    /// The same seeds give the same bytes on every machine and in every version that speaks protocol 1.
    #[test]
    fn golden_handshake() {
        let ((a, _), (b, _)) = (context(1, 9), context(2, 9));
        let (mut ra, mut rb) = (Random::new([1; 32]), Random::new([2; 32]));
        let (mut i, mut r) = (a.initiate(&mut ra).unwrap(), b.respond(&mut rb).unwrap());
        let one = i.write(&[], &[0x11; 20]).unwrap();
        r.read(&one).unwrap();
        let two = r.write(&[], b"hello of the responder").unwrap();
        i.read(&two).unwrap();
        let three = i.write(&[], b"hello of the initiator").unwrap();
        r.read(&three).unwrap();
        let keys = i.establish((X, Y), AGREED).unwrap().keys;
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| std::format!("{byte:02x}")).collect::<std::string::String>();
        let digest = |bytes: &[u8]| hex(&blake3::hash(bytes).as_bytes()[..8]);
        assert_eq!(
            [digest(&one), digest(&two), digest(&three), hex(&keys.seal[..8]), hex(&keys.open[..8])],
            ["e88f46c1ccc576cd", "76b72d83d2aec8c7", "59b61aa10b1c1d91", "29ce1be66cd023c8", "3f3534f06c92ff38"]
        );
    }

    #[test]
    fn a_foreign_town_key_fails_at_the_first_message() {
        let ((a, _), (b, _)) = (context(1, 9), context(2, 8));
        let one = a.initiate(&mut Random::new([1; 32])).unwrap().write(&[], &[0; 16]).unwrap();
        assert_eq!(one.len(), 64);
        assert!(b.respond(&mut Random::new([2; 32])).unwrap().read(&one).is_err());
    }

    #[test]
    fn a_forged_answer_leaves_the_handshake_as_it_was() {
        let ((a, _), (b, _)) = (context(1, 9), context(2, 9));
        let (mut ra, mut rb) = (Random::new([1; 32]), Random::new([2; 32]));
        let (mut i, mut r) = (a.initiate(&mut ra).unwrap(), b.respond(&mut rb).unwrap());
        let one = i.write(&[], &[0; 16]).unwrap();
        r.read(&one).unwrap();
        let two = r.write(&[], b"hello").unwrap();
        for at in 0..two.len() {
            let mut forged = two.clone();
            forged[at] ^= 1;
            assert!(i.read(&forged).is_err(), "byte {at}");
            assert!(i.read(&two[..at]).is_err(), "cut at {at}");
        }
        assert_eq!(i.read(&two).unwrap(), b"hello");
        let three = i.write(&[], b"hello too").unwrap();
        for at in 0..three.len() {
            let mut forged = three.clone();
            forged[at] ^= 1;
            assert!(r.read(&forged).is_err(), "byte {at}");
            b.take_back(&mut r).unwrap();
            assert!(r.read(&three[..at]).is_err(), "cut at {at}");
            b.take_back(&mut r).unwrap();
        }
        assert_eq!(r.read(&three).unwrap(), b"hello too");
        let agreed = Agreement { cipher: crate::Cipher::Aes256Gcm, kernel: false };
        let (i, r) = (i.establish((X, Y), AGREED).unwrap().keys, r.establish((Y, X), agreed).unwrap().keys);
        assert!(i.seal != r.open && i.open != r.seal, "ends that agreed on different things have no key in common");
    }

    /// Everything from snow but the random numbers.
    struct Plain;

    impl CryptoResolver for Plain {
        fn resolve_rng(&self) -> Option<Box<dyn SnowRandom>> {
            Some(Box::new(Random::new([5; 32])))
        }
        fn resolve_dh(&self, choice: &DHChoice) -> Option<Box<dyn Dh>> {
            DefaultResolver.resolve_dh(choice)
        }
        fn resolve_hash(&self, choice: &HashChoice) -> Option<Box<dyn Hash>> {
            DefaultResolver.resolve_hash(choice)
        }
        fn resolve_cipher(&self, choice: &CipherChoice) -> Option<Box<dyn Cipher>> {
            DefaultResolver.resolve_cipher(choice)
        }
    }

    #[test]
    fn our_diffie_hellman_agrees_with_snows() {
        let ((a, alice), (_, bob)) = (context(1, 9), context(2, 9));
        let mut i = a.initiate(&mut Random::new([1; 32])).unwrap();
        let private = bob.link_private();
        let mut r = Builder::with_resolver(PATTERN.parse().unwrap(), Box::new(Plain))
            .prologue(PROLOGUE)
            .and_then(|builder| builder.local_private_key(&*private))
            .and_then(|builder| builder.psk(0, &[9; 32]))
            .and_then(Builder::build_responder)
            .unwrap();
        let mut buffer = [0; 256];
        r.read_message(&i.write(&[], b"").unwrap(), &mut buffer).unwrap();
        let len = r.write_message(b"two", &mut buffer).unwrap();
        assert_eq!(i.read(&buffer[..len]).unwrap(), b"two");
        r.read_message(&i.write(&[], b"").unwrap(), &mut buffer).unwrap();
        assert_eq!(i.remote_static(), Some(bob.link_public()));
        assert_eq!(r.get_remote_static(), Some(&alice.link_public()[..]));
        assert_eq!(i.state.get_handshake_hash(), r.get_handshake_hash());
    }

    #[test]
    fn keys_that_force_the_secret_are_refused() {
        let (a, _) = context(1, 9);
        let mut random = Random::new([3; 32]);
        let dh = Resolver { seed: Zeroizing::new([0; 32]), public: a.public }.resolve_dh(&DHChoice::Curve25519);
        let mut dh = dh.unwrap();
        dh.generate(&mut random).unwrap();
        assert_eq!(dh.dh(&[0; 32], &mut [0; 32]), Err(snow::Error::Dh));
    }
}
