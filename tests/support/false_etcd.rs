//! An etcd that lies: it speaks the protocol, keeps a few keys in memory, and is wrong in one way.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicI64, AtomicUsize, Ordering},
    },
    thread::JoinHandle,
};

use etcd_client::proto::{
    PbCompactionRequest, PbCompactionResponse, PbDeleteRequest, PbDeleteResponse, PbEvent, PbKeyValue,
    PbKvServer, PbKvService, PbLeaseGrantRequest, PbLeaseGrantResponse, PbLeaseKeepAliveRequest,
    PbLeaseKeepAliveResponse, PbLeaseLeasesRequest, PbLeaseLeasesResponse, PbLeaseRevokeRequest,
    PbLeaseRevokeResponse, PbLeaseServer, PbLeaseService, PbLeaseTimeToLiveRequest,
    PbLeaseTimeToLiveResponse, PbPutRequest, PbPutResponse, PbRangeRequest, PbRangeResponse,
    PbRangeStreamResponse, PbResponseHeader, PbTxnOpRequest, PbTxnRequest, PbTxnResponse, PbWatchRequest,
    PbWatchRequestUnion, PbWatchResponse, PbWatchServer, PbWatchService,
};
use tokio::{
    runtime::Builder,
    sync::{mpsc, oneshot},
};
use tokio_stream::{Stream, StreamExt, wrappers::ReceiverStream};
use tonic::{
    Request, Response, Status, Streaming,
    transport::{Server, server::TcpIncoming},
};

use super::{PREFIX, free_port};

/// What is not so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lie {
    /// Nothing is wrong, to tell what a test sees without it.
    None,
    /// Every lease is granted for so many seconds, whatever was asked for.
    Grant(i64),
    /// Every grant is of a lease that is there already.
    LeaseExists,
    /// Every keep-alive over an open stream is answered: the lease has ended.
    LeaseEnded,
    /// Every put under a lease is answered: there is no such lease.
    LeaseGone,
    /// No transaction finds the key as it was read.
    NothingTaken,
    /// Each read tells of another holder.
    OtherHolder,
    /// Each read tells of our value under our lease, put just now.
    PutAgain,
    /// Every read is too large.
    TooLarge,
    /// Every read is refused with a reason of a megabyte.
    LongReason,
    /// The watch says without end that the key was deleted.
    Deleted,
    /// The watch says without end that another one has put the key.
    Overwritten,
    /// The watch says without end that the key is as it is.
    Repeated,
    /// Each watch is cancelled: its revision was compacted away.
    Compacted,
    /// Each watch ends as soon as it is confirmed.
    Cut,
    /// The list goes on for ever.
    EndlessList,
    /// Each page of the list is the first one again.
    StuckList,
    /// Each page of the list is empty, and not the last one.
    EmptyPages,
    /// The watch tells of a new host, and another one, without end.
    EndlessHosts,
}

/// It lives as long as this value.
pub struct FalseEtcd {
    address: SocketAddr,
    asked: Arc<AtomicUsize>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl FalseEtcd {
    /// Starts one on loopback.
    pub fn start(lie: Lie) -> Self {
        Self::start_at(Ipv4Addr::LOCALHOST, lie)
    }

    /// As [`FalseEtcd::start`], at another address of this machine.
    pub fn start_at(ip: Ipv4Addr, lie: Lie) -> Self {
        let listener = TcpListener::bind((ip, free_port())).unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let asked = Arc::new(AtomicUsize::new(0));
        let (stop, stopped) = oneshot::channel();
        let liar = Liar {
            lie,
            asked: Arc::clone(&asked),
            revision: Arc::new(AtomicI64::new(100)),
            keys: Arc::default(),
        };
        let thread = std::thread::spawn(move || {
            let runtime = Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                let accepted = TcpIncoming::from(listener).with_nodelay(Some(true));
                let server = Server::builder()
                    .add_service(PbKvServer::new(liar.clone()))
                    .add_service(PbLeaseServer::new(liar.clone()))
                    .add_service(PbWatchServer::new(liar))
                    .serve_with_incoming(accepted);
                tokio::select! {
                    ended = server => ended.unwrap(),
                    _ = stopped => {}
                }
            });
        });
        Self { address, asked, stop: Some(stop), thread: Some(thread) }
    }

    /// Where to connect.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// How many requests came, keep-alives among them.
    pub fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }
}

impl Drop for FalseEtcd {
    fn drop(&mut self) {
        let _ = self.stop.take().map(|stop| stop.send(()));
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// The services, and the truth that they begin with.
#[derive(Clone)]
struct Liar {
    lie: Lie,
    asked: Arc<AtomicUsize>,
    revision: Arc<AtomicI64>,
    keys: Arc<Mutex<BTreeMap<Vec<u8>, PbKeyValue>>>,
}

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

impl Liar {
    fn header(&self) -> Option<PbResponseHeader> {
        let revision = self.revision.load(Ordering::Relaxed);
        Some(PbResponseHeader { cluster_id: 1, member_id: 1, revision, raft_term: 1 })
    }

    /// A new revision.
    fn next(&self) -> i64 {
        self.revision.fetch_add(1, Ordering::Relaxed) + 1
    }

    fn is_asked(&self) {
        self.asked.fetch_add(1, Ordering::Relaxed);
    }

    fn put(&self, put: PbPutRequest) {
        let revision = self.next();
        let kv = PbKeyValue {
            key: put.key.clone(),
            value: put.value,
            create_revision: revision,
            mod_revision: revision,
            version: 1,
            lease: put.lease,
        };
        self.keys.lock().unwrap().insert(put.key, kv);
    }

    /// One key, as the lie has it.
    fn look(&self, key: &[u8]) -> Result<Vec<PbKeyValue>, Status> {
        let known = self.keys.lock().unwrap().get(key).cloned();
        match self.lie {
            Lie::TooLarge => Err(Status::out_of_range("message length too large: found 9 bytes")),
            Lie::LongReason => Err(Status::unknown("\u{1b}[31mno\u{9b}".repeat(100_000))),
            Lie::OtherHolder => {
                let revision = self.next();
                let value = b"theirs".to_vec();
                let kv = PbKeyValue {
                    key: key.to_vec(),
                    value,
                    create_revision: revision,
                    mod_revision: revision,
                    version: 1,
                    lease: revision,
                };
                Ok(vec![kv])
            }
            Lie::PutAgain => Ok(known
                .map(|kv| PbKeyValue { mod_revision: self.next(), version: 2, ..kv })
                .into_iter()
                .collect()),
            _ => Ok(known.into_iter().collect()),
        }
    }

    fn list(&self, from: &[u8], limit: i64) -> PbRangeResponse {
        let key = |name: String| PbKeyValue {
            key: [PREFIX.as_bytes(), b"/", name.as_bytes()].concat(),
            value: br#"{"http":4200,"transport":4300}"#.to_vec(),
            create_revision: 1,
            mod_revision: 1,
            version: 1,
            lease: 0,
        };
        let page = |kvs, more| PbRangeResponse { header: self.header(), kvs, more, count: 50_000 };
        match self.lie {
            // What is asked for comes after what came.
            Lie::EndlessList => {
                let name = String::from_utf8_lossy(from).rsplit('/').next().unwrap_or_default().to_owned();
                let at: u64 = name.trim_matches('\0').trim_start_matches('h').parse().unwrap_or(0);
                page((1..=limit as u64).map(|i| key(format!("h{:012}", at + i))).collect(), true)
            }
            Lie::StuckList => page((1..=limit).map(|i| key(format!("h{i:012}"))).collect(), true),
            Lie::EmptyPages => page(Vec::new(), true),
            _ => {
                let kvs: Vec<_> = self.keys.lock().unwrap().values().cloned().collect();
                let count = kvs.len() as i64;
                PbRangeResponse { header: self.header(), kvs, more: false, count }
            }
        }
    }

    /// What the watch of `key` says next, if anything.
    fn event(&self, key: &[u8], count: u64) -> Option<PbEvent> {
        let revision = self.next();
        let known = self.keys.lock().unwrap().get(key).cloned();
        let kv = |key: &[u8], value: &[u8], version, lease| PbKeyValue {
            key: key.to_vec(),
            value: value.to_vec(),
            create_revision: revision,
            mod_revision: revision,
            version,
            lease,
        };
        let kv = match self.lie {
            Lie::Deleted => kv(key, b"", 0, 0),
            Lie::Overwritten => kv(key, b"theirs", 2, revision),
            Lie::Repeated => known?,
            Lie::EndlessHosts => kv(
                // As long as a host may be, and its address, too.
                [PREFIX.as_bytes(), format!("/h{count:0>252}").as_bytes()].concat().as_slice(),
                format!(r#"{{"http":4200,"transport":4300,"address":"a{count:0>252}"}}"#).as_bytes(),
                1,
                0,
            ),
            _ => return None,
        };
        Some(PbEvent { r#type: i32::from(kv.version == 0), kv: Some(kv), prev_kv: None })
    }
}

#[tonic::async_trait]
impl PbKvService for Liar {
    type RangeStreamStream = Answers<PbRangeStreamResponse>;

    async fn range(&self, request: Request<PbRangeRequest>) -> Result<Response<PbRangeResponse>, Status> {
        self.is_asked();
        let request = request.into_inner();
        let is_list = !request.range_end.is_empty();
        Ok(Response::new(if is_list && !request.count_only {
            self.list(&request.key, request.limit)
        } else if is_list {
            let count = self.list(&request.key, 1).count;
            PbRangeResponse { header: self.header(), kvs: Vec::new(), more: false, count }
        } else {
            let kvs = self.look(&request.key)?;
            let count = kvs.len() as i64;
            PbRangeResponse { header: self.header(), kvs, more: false, count }
        }))
    }

    async fn txn(&self, request: Request<PbTxnRequest>) -> Result<Response<PbTxnResponse>, Status> {
        self.is_asked();
        match self.lie {
            Lie::LeaseGone => return Err(Status::not_found("etcdserver: requested lease not found")),
            Lie::NothingTaken => {}
            _ => {
                for operation in request.into_inner().success {
                    if let Some(PbTxnOpRequest::RequestPut(put)) = operation.request {
                        self.put(put);
                    }
                }
            }
        }
        let succeeded = self.lie != Lie::NothingTaken;
        Ok(Response::new(PbTxnResponse { header: self.header(), succeeded, responses: Vec::new() }))
    }

    async fn range_stream(
        &self,
        _: Request<PbRangeRequest>,
    ) -> Result<Response<Self::RangeStreamStream>, Status> {
        Err(Status::unimplemented("nobody asks for it"))
    }

    async fn put(&self, _: Request<PbPutRequest>) -> Result<Response<PbPutResponse>, Status> {
        Err(Status::unimplemented("nobody asks for it"))
    }

    async fn delete_range(&self, _: Request<PbDeleteRequest>) -> Result<Response<PbDeleteResponse>, Status> {
        Err(Status::unimplemented("nobody asks for it"))
    }

    async fn compact(
        &self,
        _: Request<PbCompactionRequest>,
    ) -> Result<Response<PbCompactionResponse>, Status> {
        Err(Status::unimplemented("nobody asks for it"))
    }
}

#[tonic::async_trait]
impl PbLeaseService for Liar {
    type LeaseKeepAliveStream = Answers<PbLeaseKeepAliveResponse>;

    async fn lease_grant(
        &self,
        request: Request<PbLeaseGrantRequest>,
    ) -> Result<Response<PbLeaseGrantResponse>, Status> {
        self.is_asked();
        let PbLeaseGrantRequest { ttl, id } = request.into_inner();
        let ttl = match self.lie {
            Lie::Grant(ttl) => ttl,
            Lie::LeaseExists => {
                return Err(Status::failed_precondition("etcdserver: lease already exists"));
            }
            _ => ttl,
        };
        Ok(Response::new(PbLeaseGrantResponse { header: self.header(), id, ttl, error: String::new() }))
    }

    async fn lease_revoke(
        &self,
        request: Request<PbLeaseRevokeRequest>,
    ) -> Result<Response<PbLeaseRevokeResponse>, Status> {
        self.is_asked();
        let lease = request.into_inner().id;
        self.keys.lock().unwrap().retain(|_, kv| kv.lease != lease);
        Ok(Response::new(PbLeaseRevokeResponse { header: self.header() }))
    }

    async fn lease_keep_alive(
        &self,
        request: Request<Streaming<PbLeaseKeepAliveRequest>>,
    ) -> Result<Response<Self::LeaseKeepAliveStream>, Status> {
        let (liar, mut count) = (self.clone(), 0);
        let answers = request.into_inner().map(move |asked| {
            liar.is_asked();
            count += 1;
            // The first one is how the stream begins.
            let ttl = if liar.lie == Lie::LeaseEnded && count > 1 { 0 } else { 5 };
            asked.map(|asked| PbLeaseKeepAliveResponse { header: liar.header(), id: asked.id, ttl })
        });
        Ok(Response::new(Box::pin(answers)))
    }

    async fn lease_time_to_live(
        &self,
        _: Request<PbLeaseTimeToLiveRequest>,
    ) -> Result<Response<PbLeaseTimeToLiveResponse>, Status> {
        Err(Status::unimplemented("nobody asks for it"))
    }

    async fn lease_leases(
        &self,
        _: Request<PbLeaseLeasesRequest>,
    ) -> Result<Response<PbLeaseLeasesResponse>, Status> {
        Err(Status::unimplemented("nobody asks for it"))
    }
}

#[tonic::async_trait]
impl PbWatchService for Liar {
    type WatchStream = Answers<PbWatchResponse>;

    async fn watch(
        &self,
        request: Request<Streaming<PbWatchRequest>>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let (liar, mut requests) = (self.clone(), request.into_inner());
        // As much as flow control lets through, and no more, is ahead of the reader.
        let (tell, told) = mpsc::channel(1);
        tokio::spawn(async move {
            let Some(Ok(PbWatchRequest { request_union: Some(PbWatchRequestUnion::CreateRequest(create)) })) =
                requests.next().await
            else {
                return;
            };
            liar.is_asked();
            let message = |events| PbWatchResponse { header: liar.header(), events, ..Default::default() };
            let created = PbWatchResponse { created: true, ..message(Vec::new()) };
            if tell.send(Ok(created)).await.is_err() || liar.lie == Lie::Cut {
                return;
            }
            if liar.lie == Lie::Compacted {
                let now = liar.next();
                let canceled =
                    PbWatchResponse { canceled: true, compact_revision: now, ..message(Vec::new()) };
                let _ = tell.send(Ok(canceled)).await;
                return;
            }
            let mut count = 0;
            while let Some(event) = liar.event(&create.key, count) {
                count += 1;
                if tell.send(Ok(message(vec![event]))).await.is_err() {
                    return;
                }
            }
            // Silent from here on, until the other side goes.
            while let Some(Ok(_)) = requests.next().await {}
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(told))))
    }
}
